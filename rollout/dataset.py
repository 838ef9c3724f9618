"""Trajectories <-> LeRobotDataset v3.0 on disk: the door to the dataset's files."""

from rollout.dataset_read import DatasetReader, StoredEpisode
from rollout.dataset_write import DatasetWriter

__all__ = ["DatasetReader", "DatasetWriter", "StoredEpisode"]
