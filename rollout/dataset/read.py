"""LeRobotDatasets on disk -> episodes: ours and those of other programs, version 3.0 and 2.

Version 3.0 has several episodes per file, version 2 one; the rows of an episode may be in any order within its file.

Shape letters: T frames of one episode, D vector elements, H x W pixels.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from envs.errors import UserError
from rollout.dataset import schema
from rollout.dataset.frames import decode_png, decode_video, rgb_of
from rollout.dataset.statistics import QUANTILES, FeatureStats
from vla_model.files.folders import read_json

_RESTORE = "restore it from a copy"
_NAMED = 3
"""Datasets within a folder that a message names."""
_STATISTICS = {"min", "max", "mean", "std", "count", *QUANTILES}
"""Of every feature."""
_SET = 0.5
"""A flag of numbers is set above this."""


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

    def __init__(self, root: str | Path, left_out: Collection[int] = ()) -> None:
        """Read info.json and the rows of meta/episodes, but for the episodes that are left out.

        Raises:
            UserError: the folder holds no dataset, or one of another version, or `left_out` has an episode that does
                not exist.
        """
        self.root = Path(root)
        self.info = read_info(self.root)
        self.episodes = read_episodes(self.root, left_out)

    def __iter__(self) -> Iterator[StoredEpisode]:
        return (self.episode(i) for i in range(len(self.episodes)))

    def episode(self, number: int) -> StoredEpisode:
        """Every column and frame of one episode."""
        return read_episode(self.root, self.info, self.episodes[number])


def check_is_dataset(root: Path) -> None:
    """
    Raises:
        UserError: the folder has no info.json; the message names folders in it that have one, such as a run's dataset.
    """
    if not (root / schema.INFO_PATH).exists():
        within = ", ".join(str(path.parents[1]) for path in sorted(root.glob(f"*/{schema.INFO_PATH}"))[:_NAMED])
        raise UserError(
            f"{root} holds no LeRobot dataset: {schema.INFO_PATH} is missing; name the folder that has it"
            + (f", as {within}" if within else "")
        )


def read_info(root: Path) -> dict[str, Any]:
    """info.json of a dataset.

    Raises:
        UserError: there is none, it is damaged, or of another version.
    """
    check_is_dataset(root)
    path = root / schema.INFO_PATH
    keys = ("codebase_version", "fps", "features", "data_path")
    info = read_json(path, keys, schema.RESTORE)
    if (version := info["codebase_version"]) not in schema.READ_VERSIONS:
        known = ", ".join(schema.READ_VERSIONS)
        raise UserError(
            f"{root} is a LeRobot dataset of version {version}, expected one of {known}; LeRobot converts older ones"
        )
    if misused := schema.misused(info):
        said = ", ".join(f"{key} is {json.dumps(info.get(key))[:80]}" for key in misused)
        raise UserError(f"{path} is damaged: {said}; {schema.RESTORE if schema.is_own(info) else _RESTORE}")
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
    """The files that list episodes, in their order: those of meta/episodes, or version 2's meta/episodes.jsonl."""
    old = root / schema.OLD_EPISODES_PATH
    return sorted((root / "meta/episodes").glob("chunk-*/file-*.parquet")) or ([old] if old.exists() else [])


def read_episodes(root: Path, left_out: Collection[int] = ()) -> list[dict[str, Any]]:
    """The episodes of a dataset, without their statistics.

    Args:
        root: of the dataset.
        left_out: numbers of episodes that are not returned.

    Raises:
        UserError: one of these does not exist, or a file is damaged.
    """
    rows = [row for path in episode_files(root) for row in read_rows(path)]
    known = [row["episode_index"] for row in rows]
    if unknown := sorted(set(left_out).difference(known)):
        there = f"{min(known)} to {max(known)}" if known else "none"
        raise UserError(f"episode {unknown[0]} of {root}, to be left out, does not exist; episodes: {there}")
    return [row for row in rows if row["episode_index"] not in left_out]


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The episodes that one of these files lists, without their statistics."""
    if path.suffix == ".jsonl":
        rows = _read_lines(path)
    else:
        with readable(path), pq.ParquetFile(path) as file:
            names = [name for name in file.schema_arrow.names if not name.startswith("stats/")]
            rows = file.read(columns=names).to_pylist()
    for row in rows:
        if missing := [key for key in ("episode_index", "tasks", "length") if key not in row]:
            raise UserError(f"{path} is damaged: its rows lack {', '.join(missing)}; {_RESTORE}")
    return rows


def read_episode_stats(path: Path) -> dict[str, FeatureStats]:
    """The statistics of the first episode of one file of meta/episodes."""
    with readable(path):
        (row,) = pq.read_table(path).slice(0, 1).to_pylist()
    stats: dict[str, FeatureStats] = {}
    for name, value in row.items():
        if name.startswith("stats/"):
            _, key, entry = name.split("/")
            stats.setdefault(key, {})[entry] = np.array(value)
    return stats


def data_file(root: Path, info: dict[str, Any], row: dict[str, Any]) -> Path:
    """The parquet file of an episode's columns, and of its frames unless they are videos."""
    return root / info["data_path"].format(**_place(info, row, "data"))


def video_file(root: Path, info: dict[str, Any], row: dict[str, Any], key: str) -> Path:
    """The mp4 file of an episode's camera, by the key of its feature."""
    return root / info["video_path"].format(video_key=key, **_place(info, row, f"videos/{key}"))


def _place(info: dict[str, Any], row: dict[str, Any], of: str) -> dict[str, int]:
    """The numbers in a file's name: version 3 stores them, version 2 derives them."""
    episode = row["episode_index"]
    if info["codebase_version"] != schema.CODEBASE_VERSION:
        chunk = episode // info.get("chunks_size", schema.FILES_PER_CHUNK)
        return {"episode_index": episode, "episode_chunk": chunk}
    try:
        return {name: row[f"{of}/{name}"] for name in ("chunk_index", "file_index")}
    except KeyError as error:
        raise UserError(f"episode {episode} has no {error} in meta/episodes; {_RESTORE}") from error


def start_s(row: dict[str, Any], key: str) -> float:
    """When an episode begins in the video of a camera."""
    return row.get(f"videos/{key}/from_timestamp", 0.0)


def files_of(root: Path, info: dict[str, Any], row: dict[str, Any], keys: Collection[str] | None = None) -> list[Path]:
    """All files that an episode is decoded from; of the videos only those of the features `keys`, if given."""
    videos = [key for key, feature in info["features"].items() if feature["dtype"] == "video"]
    used = [key for key in videos if keys is None or key in keys]
    return [data_file(root, info, row), *(video_file(root, info, row, key) for key in used)]


def num_rows_in(path: Path) -> int:
    """Number of rows in a parquet file, from its footer.

    Raises:
        UserError: it is missing or damaged.
    """
    with readable(path):
        return pq.read_metadata(path).num_rows


def read_tasks(root: Path) -> dict[int, str]:
    """{task_index: instruction}; empty if the file is missing.

    Raises:
        UserError: it is damaged.
    """
    path = root / schema.TASKS_PATH
    if not path.exists():
        old = root / schema.OLD_TASKS_PATH
        lines = _read_lines(old) if old.exists() else []
        with readable(old):
            return {line["task_index"]: line["task"] for line in lines}
    with readable(path):
        table = pq.read_table(path)
        # In files that LeRobot wrote with pandas, the instructions are an index that may have no name.
        (texts,) = (name for name in table.column_names if name != "task_index")
        return dict(zip(table["task_index"].to_pylist(), table[texts].to_pylist(), strict=True))


def read_vectors(
    root: Path, info: dict[str, Any], rows: Sequence[dict[str, Any]], keys: Sequence[str]
) -> dict[str, NDArray[Any]]:
    """The columns of several episodes, concatenated: {feature: [R, D]}, of those keys that the dataset has."""
    there = [key for key in keys if key in info["features"]]
    tables = _read_data(root, info, rows, there)
    return {
        key: np.concatenate(
            [_vector(t[key], info, key, data_file(root, info, row)) for t, row in zip(tables, rows, strict=True)]
        )
        for key in there
    }


def read_episode(root: Path, info: dict[str, Any], row: dict[str, Any]) -> StoredEpisode:
    """One episode from its row of meta/episodes."""
    features = info["features"]
    numbers = [key for key, feature in features.items() if feature["dtype"] not in ("image", "video")]
    (table,) = _read_data(root, info, [row], numbers)
    frames = {c: _read_frames(root, info, row, _camera_key(features, c)) for c in cameras(features)}
    return StoredEpisode(row=row, columns={key: _to_numpy(table[key]) for key in numbers}, frames=frames)


def read_marks(root: Path, info: dict[str, Any], row: dict[str, Any], key: str) -> NDArray[np.bool_]:
    """A boolean column of an episode, [T]: schema.INTERVENTION or schema.HELD; all False if the dataset lacks it."""
    if key not in info["features"]:
        return np.zeros(row["length"], bool)
    (table,) = _read_data(root, info, [row], [key])
    return _to_numpy(table[key])


def read_flags(root: Path, info: dict[str, Any], rows: Sequence[dict[str, Any]], key: str) -> list[bool | None]:
    """Whether a flag is set in a frame of each episode; None of an episode where all frames lack it (null).

    Raises:
        UserError: a file is missing or damaged, or the column has neither booleans nor numbers.
    """
    found: list[bool | None] = []
    for row, table in zip(rows, _read_data(root, info, rows, [key]), strict=True):
        column = table[key].combine_chunks()
        values = (column.flatten() if pa.types.is_nested(column.type) else column).drop_null()
        if len(values) and not _is_number(values.type):
            raise UserError(
                f"{data_file(root, info, row)}: {key} has values of type {column.type}, expected booleans or numbers"
            )
        found.append(bool((values.to_numpy(zero_copy_only=False) > _SET).any()) if len(values) else None)
    return found


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)


def cameras(features: dict[str, dict[str, Any]]) -> tuple[str, ...]:
    """The cameras' names, without LeRobot's prefix."""
    keys = [key for key, feature in features.items() if feature["dtype"] in ("image", "video")]
    return tuple(key.removeprefix(schema.IMAGE_PREFIX) for key in keys)


def _camera_key(features: dict[str, dict[str, Any]], camera: str) -> str:
    return camera if camera in features else schema.IMAGE_PREFIX + camera


def _read_data(root: Path, info: dict[str, Any], rows: Sequence[dict[str, Any]], keys: Sequence[str]) -> list[pa.Table]:
    """These columns of each episode, its frames in order; every file is read once."""
    by_file: dict[Path, list[int]] = {}
    for number, row in enumerate(rows):
        by_file.setdefault(data_file(root, info, row), []).append(number)
    found: dict[int, pa.Table] = {}
    for path, numbers in by_file.items():
        wanted = [rows[number]["episode_index"] for number in numbers]
        with readable(path):
            names = pq.read_schema(path).names
            _check_columns(path, names, keys)
            order = [name for name in ("episode_index", "frame_index") if name in names]
            table = pq.read_table(
                path,
                columns=list(dict.fromkeys((*keys, *order))),
                filters=[("episode_index", "in", wanted)] if "episode_index" in order else None,
            )
            ranks = [table[name].to_numpy() for name in reversed(order)]
            if order and (np.diff(sorted_rows := np.lexsort(ranks)) < 0).any():
                table = table.take(sorted_rows)
            episodes = table["episode_index"].to_numpy() if "episode_index" in order else np.full(len(table), wanted[0])
        for number, episode in zip(numbers, wanted, strict=True):
            begin, end = np.searchsorted(episodes, [episode, episode + 1])
            if end - begin != rows[number]["length"]:
                raise UserError(
                    f"episode {episode} of {root} has {end - begin} rows, expected {rows[number]['length']} "
                    f"(meta/episodes); {_RESTORE}, or leave it out (--without-episodes {episode})"
                )
            found[number] = table.slice(begin, end - begin).select(list(keys))
    return [found[number] for number in range(len(rows))]


def _check_columns(path: Path, names: Collection[str], keys: Sequence[str]) -> None:
    if missing := [key for key in keys if key not in names]:
        raise UserError(
            f"{path} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)} of meta/info.json; it has: "
            f"{', '.join(names)}; correct meta/info.json, or {_RESTORE}"
        )


def _read_frames(root: Path, info: dict[str, Any], row: dict[str, Any], key: str) -> NDArray[np.uint8]:
    if info["features"][key]["dtype"] == "image":
        (table,) = _read_data(root, info, [row], [key])
        pictures = table[key].combine_chunks().field("bytes")
        with readable(data_file(root, info, row)):
            return np.stack([decode_png(picture) for picture in pictures.to_pylist()])
    times_s = start_s(row, key) + np.arange(row["length"]) / info["fps"]
    path = video_file(root, info, row, key)
    with readable(path):
        return np.stack([rgb_of(frame) for frame in decode_video(path, times_s, info["fps"])])


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """The JSON objects of a file with one per line."""
    with readable(path):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if wrong := [row for row in rows if not isinstance(row, dict)]:
        raise UserError(f"{path} is damaged: expected a JSON object in each line, got {wrong[0]!r}; {_RESTORE}")
    return rows


@contextmanager
def readable(path: Path) -> Generator[None]:
    """Name the file in errors of reading it.

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
    """[T] or [T, D]; lists may be of fixed size or, as pandas writes them, not."""
    array = column.combine_chunks()
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type) or pa.types.is_fixed_size_list(array.type):
        return array.flatten().to_numpy(zero_copy_only=False).reshape(len(array), -1)
    return array.to_numpy(zero_copy_only=False)


def _vector(column: pa.ChunkedArray, info: dict[str, Any], key: str, path: Path) -> NDArray[Any]:
    """A column of numbers, [T, D].

    Raises:
        UserError: a value is missing, or a row has another number of values than info.json says.
    """
    size = math.prod(info["features"][key]["shape"])
    is_list = pa.types.is_nested(column.type)
    sizes = pc.call_function("list_value_length", [column]).drop_null().unique().to_pylist() if is_list else [1]
    if column.null_count or any(found != size for found in sizes):
        found = "missing values" if column.null_count else f"rows of {' and '.join(map(str, sorted(sizes)))} values"
        raise UserError(
            f"{path}: {key} has {found}, expected {size} values in each row (meta/info.json); correct "
            f"meta/info.json, or {_RESTORE}"
        )
    with readable(path):
        values = _to_numpy(column).reshape(len(column), -1)
    if values.dtype.kind not in "fiub":
        raise UserError(f"{path}: {key} has values of type {column.type}, expected numbers")
    return values
