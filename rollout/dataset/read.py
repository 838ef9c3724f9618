"""LeRobotDataset v3.0 on disk -> episodes: ours, and those that LeRobot wrote (several episodes per file).

Shape letters: T frames of one episode, D vector elements, H x W pixels.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from envs.errors import UserError
from rollout.dataset import schema
from rollout.dataset.frames import decode_png, decode_video
from rollout.dataset.statistics import QUANTILES, FeatureStats
from vla_model.files.folders import read_json

_RESTORE = "restore it from a copy"
_STATISTICS = {"min", "max", "mean", "std", "count", *QUANTILES}
"""Of every feature."""


@dataclass(frozen=True, kw_only=True)
class StoredEpisode:
    """One episode as stored."""

    row: dict[str, Any]
    """Its row of meta/episodes without statistics: episode_index, tasks, length, and of ours spec_id, success, ..."""
    columns: dict[str, NDArray[Any]]
    """{feature: [T] or [T, D]}, every feature except cameras."""
    frames: dict[str, NDArray[np.uint8]]
    """{camera: [T, H, W, 3]}, RGB."""

    @property
    def instruction(self) -> str:
        """
        Raises:
            UserError: the episode has several instructions in sequence.
        """
        if len(self.row["tasks"]) != 1:
            raise UserError(f"episode {self.row['episode_index']} has several instructions: {self.row['tasks']}")
        return self.row["tasks"][0]


class DatasetReader:
    """A snapshot of a dataset at the time of opening."""

    def __init__(self, root: str | Path) -> None:
        """Read info.json and the rows of meta/episodes.

        Raises:
            UserError: the folder holds no dataset, or one of another version.
        """
        self.root = Path(root)
        self.info = read_info(self.root)
        self.episodes = [row for path in episode_files(self.root) for row in read_rows(path)]

    def __iter__(self) -> Iterator[StoredEpisode]:
        return (self.episode(i) for i in range(len(self.episodes)))

    def episode(self, number: int) -> StoredEpisode:
        """Every column and frame of one episode."""
        return read_episode(self.root, self.info, self.episodes[number])


def read_info(root: Path) -> dict[str, Any]:
    """info.json of a dataset.

    Raises:
        UserError: there is none, it is damaged, or of another version.
    """
    path = root / schema.INFO_PATH
    if not path.exists():
        raise UserError(f"{root} holds no LeRobot dataset: {schema.INFO_PATH} is missing")
    keys = ("codebase_version", "fps", "features", "data_path")
    info = read_json(path, keys, schema.RESTORE)
    if info["codebase_version"] != schema.CODEBASE_VERSION:
        version = info["codebase_version"]
        raise UserError(f"{root} is a LeRobot dataset of version {version}, expected {schema.CODEBASE_VERSION}")
    if misused := schema.misused(info):
        said = ", ".join(f"{key} is {json.dumps(info[key])[:80]}" for key in misused)
        raise UserError(f"{path} is damaged: {said}; {schema.RESTORE}")
    return info


def read_stats(root: Path) -> dict[str, FeatureStats]:
    """stats.json of a dataset, as arrays.

    Raises:
        UserError: there is none, or it is damaged.
    """
    path = root / schema.STATS_PATH
    if not path.exists():
        raise UserError(f"{path} is missing: normalization needs its statistics; append an episode to compute it")
    features, remedy = read_info(root)["features"], "append an episode to compute it again"
    stored = read_json(path, remedy=remedy)
    whole = {key: entry for key, entry in stored.items() if isinstance(entry, dict) and entry.keys() >= _STATISTICS}
    for key in features.keys() & {schema.STATE, schema.ACTION, schema.LOCALIZATION}:
        shape = tuple(features[key]["shape"])
        if key not in whole or {np.shape(whole[key][name]) for name in _STATISTICS - {"count"}} != {shape}:
            raise UserError(
                f"{path} is damaged: {key} needs {', '.join(sorted(_STATISTICS))} of shape {shape}; {remedy}"
            )
    return {key: {name: np.array(value) for name, value in entry.items()} for key, entry in whole.items()}


def episode_files(root: Path) -> list[Path]:
    """The files of meta/episodes in the order of their episodes."""
    return sorted((root / "meta/episodes").glob("chunk-*/file-*.parquet"))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The episodes of one file of meta/episodes, without their statistics."""
    with _readable(path), pq.ParquetFile(path) as file:
        names = [name for name in file.schema_arrow.names if not name.startswith("stats/")]
        rows = file.read(columns=names).to_pylist()
    for row in rows:
        if missing := [key for key in ("episode_index", "tasks", "length") if key not in row]:
            raise UserError(f"{path} is damaged: its rows lack {', '.join(missing)}; {_RESTORE}")
    return rows


def read_episode_stats(path: Path) -> dict[str, FeatureStats]:
    """The statistics of the first episode of one file of meta/episodes."""
    with _readable(path):
        (row,) = pq.read_table(path).slice(0, 1).to_pylist()
    stats: dict[str, FeatureStats] = {}
    for name, value in row.items():
        if name.startswith("stats/"):
            _, key, entry = name.split("/")
            stats.setdefault(key, {})[entry] = np.array(value)
    return stats


def data_file(root: Path, info: dict[str, Any], row: dict[str, Any]) -> Path:
    """The parquet file of an episode's columns, and of its frames unless they are videos."""
    place = {"chunk_index": row["data/chunk_index"], "file_index": row["data/file_index"]}
    return root / info["data_path"].format(**place)


def video_file(root: Path, info: dict[str, Any], row: dict[str, Any], key: str) -> Path:
    """The mp4 file of an episode's camera, by the key of its feature."""
    names = {"video_key": key} | {name: row[f"videos/{key}/{name}"] for name in ("chunk_index", "file_index")}
    return root / info["video_path"].format(**names)


def files_of(root: Path, info: dict[str, Any], row: dict[str, Any]) -> list[Path]:
    """All files that an episode is decoded from."""
    videos = [key for key, feature in info["features"].items() if feature["dtype"] == "video"]
    return [data_file(root, info, row), *(video_file(root, info, row, key) for key in videos)]


def num_rows_in(path: Path) -> int:
    """Number of rows in a parquet file, from its footer.

    Raises:
        UserError: it is missing or damaged.
    """
    with _readable(path):
        return pq.read_metadata(path).num_rows


def read_tasks(root: Path) -> dict[int, str]:
    """{task_index: instruction}; empty if the file is missing.

    Raises:
        UserError: it is damaged.
    """
    path = root / schema.TASKS_PATH
    if not path.exists():
        return {}
    with _readable(path):
        table = pq.read_table(path)
        # In files that LeRobot wrote with pandas, the instructions are an index that may have no name.
        (texts,) = (name for name in table.column_names if name != "task_index")
        return dict(zip(table["task_index"].to_pylist(), table[texts].to_pylist(), strict=True))


def read_vectors(
    root: Path, info: dict[str, Any], rows: Sequence[dict[str, Any]], keys: Sequence[str]
) -> dict[str, NDArray[Any]]:
    """The columns of several episodes, concatenated: {feature: [R, D]}, of those keys that the dataset has."""
    there = [key for key in keys if key in info["features"]]
    tables = [_read_data(root, info, row, there) for row in rows]
    return {key: np.concatenate([_to_numpy(t[key]).reshape(len(t), -1) for t in tables]) for key in there}


def read_episode(root: Path, info: dict[str, Any], row: dict[str, Any]) -> StoredEpisode:
    """One episode from its row of meta/episodes."""
    features = info["features"]
    numbers = [key for key, feature in features.items() if feature["dtype"] not in ("image", "video")]
    table = _read_data(root, info, row, numbers)
    frames = {c: _read_frames(root, info, row, _camera_key(features, c)) for c in cameras(features)}
    return StoredEpisode(row=row, columns={key: _to_numpy(table[key]) for key in numbers}, frames=frames)


def read_marks(root: Path, info: dict[str, Any], row: dict[str, Any], key: str) -> NDArray[np.bool_]:
    """A boolean column of an episode, [T]: schema.INTERVENTION or schema.HELD; all False if the dataset lacks it."""
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
    is_own = [("episode_index", "=", row["episode_index"])]
    path = data_file(root, info, row)
    with _readable(path):
        table = pq.read_table(path, columns=keys, filters=is_own)
    if len(table) != row["length"]:
        raise UserError(f"episode {row['episode_index']} of {root} has {len(table)} rows, expected {row['length']}")
    return table


def _read_frames(root: Path, info: dict[str, Any], row: dict[str, Any], key: str) -> NDArray[np.uint8]:
    if info["features"][key]["dtype"] == "image":
        pictures = _read_data(root, info, row, [key])[key].combine_chunks().field("bytes")
        with _readable(data_file(root, info, row)):
            return np.stack([decode_png(picture) for picture in pictures.to_pylist()])
    times_s = row[f"videos/{key}/from_timestamp"] + np.arange(row["length"]) / info["fps"]
    path = video_file(root, info, row, key)
    with _readable(path):
        return decode_video(path, times_s)


@contextmanager
def _readable(path: Path) -> Generator[None]:
    """
    Raises:
        UserError: the file is missing, truncated or of another format.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; {_RESTORE}") from error
    except (pa.ArrowException, av.FFmpegError, OSError, KeyError, IndexError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{path} is damaged ({reason}); {_RESTORE}") from error


def _to_numpy(column: pa.ChunkedArray) -> NDArray[Any]:
    array = column.combine_chunks()
    if pa.types.is_fixed_size_list(array.type):
        return array.flatten().to_numpy().reshape(len(array), -1)
    return array.to_numpy(zero_copy_only=False)
