"""LeRobotDataset v3.0 on disk -> episodes: ours, and those that LeRobot wrote (several episodes to a file).

Shape letters: T frames of one episode, D vector elements, H x W pixels.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from envs.types import WorldSpec
from rollout import dataset_schema as schema
from rollout.dataset_frames import decode_png, decode_video
from rollout.dataset_stats import FeatureStats


@dataclass(frozen=True, kw_only=True)
class StoredEpisode:
    """One episode as it stands on disk."""

    row: dict[str, Any]
    """Its row of meta/episodes without statistics: episode_index, tasks, length, and of ours spec_id, success, ..."""
    columns: dict[str, NDArray[Any]]
    """{feature: [T] or [T, D]}, every feature that is not a camera."""
    frames: dict[str, NDArray[np.uint8]]
    """{camera: [T, H, W, 3]}, RGB."""

    @property
    def instruction(self) -> str:
        return self.row["tasks"][0]


class DatasetReader:
    """A dataset as it stood when it was opened."""

    def __init__(self, root: str | Path) -> None:
        """Read info.json and the rows of meta/episodes.

        Raises:
            ValueError: the folder holds no dataset, or one of another version.
        """
        self.root = Path(root)
        self.info = read_info(self.root)
        self.features: dict[str, dict[str, Any]] = self.info["features"]
        self.fps: int = self.info["fps"]
        self.episodes = [row for path in episode_files(self.root) for row in read_rows(path)]

    @property
    def num_episodes(self) -> int:
        return len(self.episodes)

    @property
    def cameras(self) -> tuple[str, ...]:
        return cameras(self.features)

    @cached_property
    def world_spec(self) -> WorldSpec:
        """Of the world that was recorded.

        Raises:
            ValueError: another writer made the dataset.
        """
        return schema.read_world_spec(self.info)

    @cached_property
    def stats(self) -> dict[str, FeatureStats]:
        """stats.json: {feature: {"mean", "std", "min", "max", "count", "q01", ...: array}}.

        Raises:
            ValueError: there is none.
        """
        return read_stats(self.root)

    def __iter__(self) -> Iterator[StoredEpisode]:
        return (self.episode(i) for i in range(self.num_episodes))

    def episode(self, number: int) -> StoredEpisode:
        """Every column and frame of one episode."""
        return read_episode(self.root, self.info, self.episodes[number])

    def frames(self, number: int, camera: str) -> NDArray[np.uint8]:
        """One camera's frames of one episode, [T, H, W, 3].

        Raises:
            ValueError: no such camera.
        """
        if camera not in self.cameras:
            raise ValueError(f"camera {camera!r} is not in {self.root}; cameras: {', '.join(self.cameras)}")
        return _read_frames(self.root, self.info, self.episodes[number], _camera_key(self.features, camera))


def read_info(root: Path) -> dict[str, Any]:
    """info.json of a dataset.

    Raises:
        ValueError: there is none, or of another version.
    """
    path = root / schema.INFO_PATH
    if not path.exists():
        raise ValueError(f"{root} holds no LeRobot dataset: {schema.INFO_PATH} is missing")
    info: dict[str, Any] = json.loads(path.read_bytes())
    if info["codebase_version"] != schema.CODEBASE_VERSION:
        version = info["codebase_version"]
        raise ValueError(f"{root} is a LeRobot dataset of version {version}, expected {schema.CODEBASE_VERSION}")
    return info


def read_stats(root: Path) -> dict[str, FeatureStats]:
    """stats.json of a dataset, as arrays.

    Raises:
        ValueError: there is none.
    """
    path = root / schema.STATS_PATH
    if not path.exists():
        raise ValueError(
            f"{path} is missing: without statistics nothing can be normalised; append an episode to make it"
        )
    stored = json.loads(path.read_bytes())
    return {key: {name: np.array(value) for name, value in entry.items()} for key, entry in stored.items()}


def episode_files(root: Path) -> list[Path]:
    """The files of meta/episodes in the order of their episodes."""
    return sorted((root / "meta/episodes").glob("chunk-*/file-*.parquet"))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The episodes of one file of meta/episodes, without their statistics."""
    with pq.ParquetFile(path) as file:
        names = [name for name in file.schema_arrow.names if not name.startswith("stats/")]
        return file.read(columns=names).to_pylist()


def read_episode_stats(path: Path) -> dict[str, FeatureStats]:
    """The statistics of the first episode of one file of meta/episodes."""
    (row,) = pq.read_table(path).slice(0, 1).to_pylist()
    stats: dict[str, FeatureStats] = {}
    for name, value in row.items():
        if name.startswith("stats/"):
            _, key, entry = name.split("/")
            stats.setdefault(key, {})[entry] = np.array(value)
    return stats


def read_episode(root: Path, info: dict[str, Any], row: dict[str, Any]) -> StoredEpisode:
    """One episode from its row of meta/episodes."""
    features = info["features"]
    numbers = [key for key, feature in features.items() if feature["dtype"] not in ("image", "video")]
    table = _read_data(root, info, row, numbers)
    frames = {c: _read_frames(root, info, row, _camera_key(features, c)) for c in cameras(features)}
    return StoredEpisode(row=row, columns={key: _to_numpy(table[key]) for key in numbers}, frames=frames)


def read_marks(root: Path, info: dict[str, Any], row: dict[str, Any], key: str) -> NDArray[np.bool_]:
    """Which frames of an episode are marked, [T], by a person's acting (schema.INTERVENTION) or as held (schema.HELD);
    none where the dataset has no such column.
    """
    if key not in info["features"]:
        return np.zeros(row["length"], bool)
    return _to_numpy(_read_data(root, info, row, [key])[key])


def cameras(features: dict[str, dict[str, Any]]) -> tuple[str, ...]:
    """The cameras' names, without LeRobot's prefix."""
    keys = [key for key, feature in features.items() if feature["dtype"] in ("image", "video")]
    return tuple(key.removeprefix(schema.IMAGE_PREFIX) for key in keys)


def _camera_key(features: dict[str, dict[str, Any]], camera: str) -> str:
    return camera if camera in features else schema.IMAGE_PREFIX + camera


def _read_data(root: Path, info: dict[str, Any], row: dict[str, Any], keys: list[str]) -> pa.Table:
    place = {"chunk_index": row["data/chunk_index"], "file_index": row["data/file_index"]}
    is_own = [("episode_index", "=", row["episode_index"])]
    table = pq.read_table(root / info["data_path"].format(**place), columns=keys, filters=is_own)
    if len(table) != row["length"]:
        raise ValueError(f"episode {row['episode_index']} of {root} has {len(table)} rows, expected {row['length']}")
    return table


def _read_frames(root: Path, info: dict[str, Any], row: dict[str, Any], key: str) -> NDArray[np.uint8]:
    if info["features"][key]["dtype"] == "image":
        pictures = _read_data(root, info, row, [key])[key].combine_chunks().field("bytes")
        return np.stack([decode_png(picture) for picture in pictures.to_pylist()])
    names = {"video_key": key} | {name: row[f"videos/{key}/{name}"] for name in ("chunk_index", "file_index")}
    times_s = row[f"videos/{key}/from_timestamp"] + np.arange(row["length"]) / info["fps"]
    return decode_video(root / info["video_path"].format(**names), times_s)


def _to_numpy(column: pa.ChunkedArray) -> NDArray[Any]:
    array = column.combine_chunks()
    if pa.types.is_fixed_size_list(array.type):
        return array.flatten().to_numpy().reshape(len(array), -1)
    return array.to_numpy(zero_copy_only=False)
