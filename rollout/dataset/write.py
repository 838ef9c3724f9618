"""Trajectories -> LeRobotDataset v3.0 on disk, safe against a kill at any moment.

Every episode has its own files, each written under a temporary name, synced and then renamed, in this order:

    videos/<key>/chunk-XXX/file-XXX.mp4 (video mode), data/chunk-XXX/file-XXX.parquet, meta/tasks.parquet (a new task)
    meta/episodes/chunk-XXX/file-XXX.parquet     <- from here on the episode exists
    meta/info.json, meta/stats.json              <- totals, which can be recomputed from the above

So a reader never sees part of an episode, an episode is on disk when `append` returns, and opening a dataset after a
kill deletes files without an episodes file and recomputes the totals. A drive is recorded row by row in a spool file
(rollout/dataset/spool.py); if the process was killed, opening the dataset turns it into an episode.

Shape letters: T frames of one episode, D vector elements, H x W pixels.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from envs.errors import UserError
from envs.types import EpisodeSpec, WorldSpec
from rollout.dataset import schema
from rollout.dataset.check import check_numbers
from rollout.dataset.frames import Frames, encode_png, encode_video
from rollout.dataset.read import (
    episode_files,
    files_of,
    num_rows_in,
    read_episode_stats,
    read_info,
    read_rows,
    read_stats,
    read_tasks,
)
from rollout.dataset.spool import SPOOL_PATH, Spool, Spooled
from rollout.dataset.statistics import FeatureStats, aggregate, image_stats, vector_stats
from rollout.types import Trajectory
from vla_model.files.folders import make_folder, write_json, write_whole

UNFINISHED = "outcome unknown: the process that recorded it ended before the episode did"
"""Failure of an episode whose outcome is unknown."""

_LOCK_PATH = "meta/.writer.lock"
_TABLE_OPTIONS: dict[str, Any] = {"compression": "snappy", "use_dictionary": False}
_GROUP_BYTES = 32 << 20
"""Images per row group: bounds the memory while an episode is written."""


class WriterBusyError(UserError):
    """Another writer has the dataset open."""


class DatasetWriter:
    """Appends episodes to the dataset in a folder, which it creates or continues. One writer at a time."""

    def __init__(
        self,
        root: str | Path,
        world_spec: WorldSpec,
        *,
        robot_type: str,
        image_mode: schema.ImageMode = "image",
        codec: schema.VideoCodec = "libsvtav1",
        interventions: bool = False,
    ) -> None:
        """Open, repair or create the dataset.

        Args:
            root: the dataset's folder.
            world_spec: of the trajectories.
            robot_type: LeRobot's name of the robot.
            image_mode: "image" stores lossless PNGs in the parquet files; "video" one mp4 per camera and episode.
            codec: of videos.
            interventions: also store, for drives, the frames in which a person acted or the robot was held.

        Raises:
            UserError: the folder holds a dataset of other cameras, dimensions, rate or robot (the message lists the
                differences), another writer has it open, it is damaged, it holds other files, or the format does not
                support the world's cameras or names.
        """
        self.root = Path(root)
        self._world_spec = world_spec
        self.info = schema.make_info(world_spec, robot_type, image_mode, codec, interventions=interventions)
        self._codec: schema.VideoCodec = codec
        make_folder(self.root / "meta")
        self._lock = FileLock(self.root / _LOCK_PATH)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise WriterBusyError(f"{self.root} is open in another writer") from None
        self._tasks: dict[str, int] = {}
        self._ids: set[str] = set()
        self._stats: dict[str, FeatureStats] = {}
        try:
            self._open()
            self._finish_recording(success=False, ended=UNFINISHED)
        except BaseException:
            self.close()
            raise

    def append(self, trajectory: Trajectory, frames: Mapping[str, Frames] | None = None) -> None:
        """Add one episode; on return it is on the disk.

        Args:
            trajectory: with the frame of every step.
            frames: {camera: its frames}, if they are not in the trajectory.

        Raises:
            UserError: its spec is already in the dataset, a frame is missing (record with all_frames), a shape differs
                from the dataset's, a number is not finite, or an action is outside [-1, 1]. Nothing is written.
        """
        if trajectory.spec.id in self._ids:
            raise UserError(f"episode {trajectory.spec.id} is already in {self.root}")
        columns, pictures = self._columns(trajectory, trajectory.frames if frames is None else frames)
        stats = {key: vector_stats(values) for key, values in columns.items()}
        stats |= {key: image_stats(seen) for key, seen in pictures.items()}
        self._write_frames(columns, pictures)
        tasks = self._tasks | {trajectory.instruction: self._task_index(trajectory)}
        if len(tasks) > len(self._tasks):
            self._write_tasks(tasks)
        row = self._episode_row(trajectory)
        row |= {f"stats/{key}/{name}": v.tolist() for key, entry in stats.items() for name, v in entry.items()}
        # One row of some 200 columns: statistics and a copy of the schema would be more than half of the file.
        lean = {"write_statistics": False, "store_schema": False}
        self._write_table(schema.EPISODES_PATH, pa.table({key: [value] for key, value in row.items()}), **lean)
        self._ids.add(trajectory.spec.id)
        self._tasks = tasks
        self._stats = {k: aggregate([self._stats[k], s]) for k, s in stats.items()} if self._stats else stats
        self.info["total_episodes"] += 1
        self.info["total_frames"] += trajectory.num_steps
        self._write_totals()

    def record(self, spec: EpisodeSpec, instruction: str, policy_version: int) -> Spool:
        """Begin an episode that is recorded row by row; `finish` ends it.

        Args:
            spec: identifies it; not yet in the dataset.
            instruction: of the episode.
            policy_version: of the weights that act.

        Raises:
            OSError: nothing can be written.
        """
        return Spool(self.root / SPOOL_PATH, self._world_spec, spec, instruction, policy_version)

    def finish(self, spool: Spool, *, success: bool, ended: str, duration_s: float) -> None:
        """Turn the recording into an episode, if it has rows.

        Raises:
            RecordingError: not every row could be written, and `add` has not raised it; the others are an episode.
            OSError: it cannot be written. The recording stays, and becomes an episode of unknown outcome when the
                dataset is opened again.
        """
        try:
            spool.close()
        finally:
            try:
                self._finish_recording(success=success, ended=ended, duration_s=duration_s)
            except OSError as error:
                kept = f"the recording is kept in {spool.path} and becomes an episode when {self.root} is opened again"
                where = f": {error.filename}" if error.filename else ""
                raise OSError(error.errno, f"{error.strerror or error}{where}; {kept}") from error

    def finished_ids(self) -> set[str]:
        """The spec ids of the stored episodes."""
        return set(self._ids)

    def close(self) -> None:
        """Release the lock. Nothing is pending: `append` writes everything."""
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # Rows of one episode ---------------------------------------------------------------------------------------------

    def _columns(
        self, trajectory: Trajectory, pictures: Mapping[str, Frames]
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Frames]]:
        """{feature: [T] or [T, D]} and {feature: frames of a camera}, checked against info.json."""
        steps = trajectory.num_steps
        if not np.array_equal(trajectory.frame_step, np.arange(steps)):
            raise UserError(
                f"episode {trajectory.spec.id} has {len(trajectory.frame_step)} frames for {steps} steps; "
                "a dataset needs the frame of every step: collect(..., all_frames=True)"
            )
        last = np.arange(steps) == steps - 1
        columns: dict[str, NDArray[Any]] = {
            schema.STATE: trajectory.state,
            schema.LOCALIZATION: trajectory.localization,
            schema.ACTION: trajectory.label,
            schema.EXECUTED: trajectory.action,
            schema.REWARD: trajectory.reward,
            schema.DONE: last,
            schema.SUCCESS: last & trajectory.success,
            schema.INTERVENTION: np.zeros(steps, bool) if trajectory.intervention is None else trajectory.intervention,
            schema.HELD: np.zeros(steps, bool) if trajectory.held is None else trajectory.held,
            "timestamp": (np.arange(steps) / self.info["fps"]).astype(np.float32),
            "frame_index": np.arange(steps),
            "episode_index": np.full(steps, self.info["total_episodes"]),
            "index": np.arange(steps) + self.info["total_frames"],
            "task_index": np.full(steps, self._task_index(trajectory)),
        }
        frames = {schema.IMAGE_PREFIX + camera: seen for camera, seen in pictures.items()}
        features = self.info["features"]
        columns = {key: values for key, values in columns.items() if key in features}
        shapes = {key: values.shape for key, values in (*columns.items(), *frames.items())}
        for key, shape in shapes.items():
            expected = features.get(key, {"shape": None})["shape"]
            if shape[0] != steps or (list(shape[1:]) or [1]) != expected:
                raise UserError(f"{key} has shape {shape}, expected {steps} rows of {expected}")
        vectors = {key: values.reshape(steps, -1) for key, values in columns.items()}
        check_numbers(f"episode {trajectory.spec.id}", self.info, vectors, cloned=True)
        missing = [key for key in features if key not in columns and key not in frames]
        if missing:
            raise UserError(f"episode {trajectory.spec.id} lacks {', '.join(missing)}")
        return columns, frames

    def _task_index(self, trajectory: Trajectory) -> int:
        return self._tasks.get(trajectory.instruction, len(self._tasks))

    def _episode_row(self, trajectory: Trajectory) -> dict[str, Any]:
        number, start = self.info["total_episodes"], self.info["total_frames"]
        chunk, file = schema.chunk_and_file(number)
        row = {
            "episode_index": number,
            "tasks": [trajectory.instruction],
            "length": trajectory.num_steps,
            "dataset_from_index": start,
            "dataset_to_index": start + trajectory.num_steps,
        }
        for holder in ("data", "meta/episodes", *(f"videos/{key}" for key in self._video_keys())):
            row |= {f"{holder}/chunk_index": chunk, f"{holder}/file_index": file}
        for key in self._video_keys():
            row[f"videos/{key}/from_timestamp"] = 0.0
            row[f"videos/{key}/to_timestamp"] = trajectory.num_steps / self.info["fps"]
        return row | {
            "spec_id": trajectory.spec.id,
            "suite": trajectory.spec.suite,
            "task_name": trajectory.spec.task,
            "seed": trajectory.spec.seed,
            "variation": trajectory.spec.variation,
            "success": trajectory.success,
            "terminated": trajectory.terminated,
            "truncated": trajectory.truncated,
            "failure": trajectory.failure or "",
            "policy_version": trajectory.policy_version,
        }

    # Files -----------------------------------------------------------------------------------------------------------

    def _path(self, template: str, number: int, **names: str) -> Path:
        chunk, file = schema.chunk_and_file(number)
        return self.root / template.format(chunk_index=chunk, file_index=file, **names)

    def _video_keys(self) -> list[str]:
        return [key for key, feature in self.info["features"].items() if feature["dtype"] == "video"]

    def _write_frames(self, columns: dict[str, NDArray[Any]], frames: dict[str, Frames]) -> None:
        """One episode's data file, and its videos before it."""
        features = self.info["features"]
        for key in self._video_keys():
            path = self._path(schema.VIDEO_PATH, self.info["total_episodes"], video_key=key)
            encode_video(schema.part_path(path), frames[key], self.info["fps"], self._codec)
            schema.publish_file(schema.part_path(path), path)
        pngs = {key: map(encode_png, seen) for key, seen in frames.items() if features[key]["dtype"] == "image"}
        path = self._path(schema.DATA_PATH, self.info["total_episodes"])
        writer: pq.ParquetWriter | None = None
        try:
            for rows, pictures in _row_groups(pngs, len(columns["index"])):
                arrays = {
                    key: _picture_column(pictures[key], rows.start)
                    if key in pictures
                    else _arrow_column(columns[key][rows], feature)
                    for key, feature in features.items()
                    if feature["dtype"] != "video"
                }
                table = pa.table(arrays)
                if writer is None:
                    writer = pq.ParquetWriter(schema.part_path(path), table.schema, **_TABLE_OPTIONS)
                writer.write_table(table)
        finally:
            if writer is not None:
                writer.close()
        schema.publish_file(schema.part_path(path), path)

    def _write_table(self, template: str, table: pa.Table, **options: Any) -> None:
        path = self._path(template, self.info["total_episodes"])
        pq.write_table(table, schema.part_path(path), **_TABLE_OPTIONS, **options)
        schema.publish_file(schema.part_path(path), path)

    def _write_tasks(self, tasks: dict[str, int]) -> None:
        table = pa.table({"task_index": list(tasks.values()), "task": list(tasks)})
        # LeRobot reads this file with pandas and looks tasks up by its index, which pandas finds through this metadata.
        column = {"name": "task", "field_name": "task", "pandas_type": "unicode", "numpy_type": "object"}
        number = {"name": "task_index", "field_name": "task_index", "pandas_type": "int64", "numpy_type": "int64"}
        columns = [entry | {"metadata": None} for entry in (number, column)]
        pandas = {"index_columns": ["task"], "column_indexes": [], "columns": columns, "pandas_version": "2.0.0"}
        table = table.replace_schema_metadata({"pandas": json.dumps(pandas)})
        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        write_whole(self.root / schema.TASKS_PATH, buffer.getvalue())

    def _write_totals(self) -> None:
        self.info["total_tasks"] = len(self._tasks)
        self.info["splits"] = {"train": f"0:{self.info['total_episodes']}"}
        stats = {key: {name: value.tolist() for name, value in entry.items()} for key, entry in self._stats.items()}
        write_json(self.root / schema.STATS_PATH, stats, indent=None)
        write_json(self.root / schema.INFO_PATH, self.info)

    # Opening ---------------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        """Open an existing dataset: refuse a different kind, delete partial episodes, count complete ones."""
        if not (self.root / schema.INFO_PATH).exists():
            others = [p.name for p in self.root.iterdir() if p.name != "meta"]
            if others or (self.root / "meta/episodes").exists():
                raise UserError(
                    f"{self.root} is not empty and holds no {schema.INFO_PATH}: {', '.join(others)}; name another "
                    "folder"
                )
            self._write_totals()
            return
        found = read_info(self.root)
        self._refuse_another(found)
        files = episode_files(self.root)
        if files != [self._path(schema.EPISODES_PATH, number) for number in range(len(files))]:
            raise UserError(
                f"{self.root} is damaged: its {len(files)} files in meta/episodes are not numbered 0..N-1; restore "
                "it from a copy"
            )
        self._drop_orphans(len(files))
        rows = [self._whole_row(number, path, found) for number, path in enumerate(files)]
        if any(len(row["tasks"]) > 1 for row in rows):  # their frames use the task_index of tasks.parquet
            self._tasks = {task: number for number, task in read_tasks(self.root).items()}
        for row in rows:
            self._ids.add(row["spec_id"])
            self._tasks.setdefault(row["tasks"][0], len(self._tasks))
            self.info["total_episodes"] += 1
            self.info["total_frames"] = row["dataset_to_index"]
        self._load_stats(files)
        self._write_tasks(self._tasks)
        self._write_totals()

    def _whole_row(self, number: int, path: Path, info: dict[str, Any]) -> dict[str, Any]:
        """The row of an episode, after checking that its files are complete.

        Raises:
            UserError: one is missing or truncated.
        """
        rows = read_rows(path)
        if len(rows) != 1 or not rows[0].keys() >= {"spec_id", "dataset_to_index"}:
            raise UserError(f"{path} is damaged: expected one episode with its spec_id; restore it from a copy")
        for file in files_of(self.root, info, rows[0]):
            if not file.exists() or not file.stat().st_size:
                raise UserError(
                    f"{self.root} is damaged: {file} of episode {number} is missing; restore it from a copy"
                )
        if (found := num_rows_in(self._path(schema.DATA_PATH, number))) != rows[0]["length"]:
            raise UserError(
                f"episode {number} of {self.root} has {found} rows, expected {rows[0]['length']}; restore it from a "
                "copy"
            )
        return rows[0]

    def _finish_recording(self, *, success: bool, ended: str, duration_s: float = 0.0) -> None:
        """Turn the spool file into an episode, if there is one."""
        path = self.root / SPOOL_PATH
        if not path.exists():
            return
        spooled = Spooled(path)
        if spooled.num_rows:
            trajectory = spooled.trajectory(success=success, ended=ended, duration_s=duration_s)
            if trajectory.spec.id not in self._ids:  # a kill may come between the two next lines
                self._append_recording(trajectory, spooled)
        path.unlink()

    def _append_recording(self, trajectory: Trajectory, spooled: Spooled) -> None:
        """
        Raises:
            UserError: the recording is no valid episode. It is renamed, so that the dataset can be opened.
        """
        try:
            self.append(trajectory, spooled.frames)
        except UserError as error:
            path = self.root / SPOOL_PATH
            others = len(list(path.parent.glob(f"{path.name}.refused*")))
            aside = path.replace(path.with_name(f"{path.name}.refused{others or ''}"))
            raise UserError(f"{error}; the recording is set aside in {aside}") from error

    def _refuse_another(self, found: dict[str, Any]) -> None:
        if "llamarm" in found:
            schema.read_world_spec(found)  # raises an error that names the damaged part
            # Older datasets lack projections, grippers, position and places: assumed equal to ours.
            theirs, ours = found["llamarm"]["world_spec"], self.info["llamarm"]["world_spec"]
            for old, new in zip(theirs["cameras"], ours["cameras"], strict=False):
                old.setdefault("projection", new["projection"])
            for vector in ("state", "action", "localization"):
                for key in ("grippers", "position", "places"):
                    theirs[vector].setdefault(key, ours[vector][key])
        kept = ("robot_type", "fps", "video_path", "features", "llamarm")
        lines = [line for key in kept for line in schema.differences(found.get(key), self.info[key], key)]
        if lines and schema.HELD in self.info["features"].keys() - found["features"].keys():
            lines.append(f"it has no column {schema.HELD!r}: record to another folder; --drives takes both folders")
        if lines:
            raise UserError(
                f"{self.root} holds a dataset of another kind:\n  " + "\n  ".join(lines) + "\nname another folder"
            )

    def _drop_orphans(self, num_episodes: int) -> None:
        """Delete the files of episodes that were not completed."""
        whole = {self._path(schema.DATA_PATH, number) for number in range(num_episodes)}
        for key in self._video_keys():
            whole |= {self._path(schema.VIDEO_PATH, number, video_key=key) for number in range(num_episodes)}
        written = [*self.root.glob("data/*/*.parquet"), *self.root.glob("videos/*/*/*.mp4")]
        for path in [*self.root.rglob("*.part"), *(path for path in written if path not in whole)]:
            path.unlink()

    def _load_stats(self, files: list[Path]) -> None:
        """Load stats.json if it covers every frame, else recompute it from the episodes' statistics."""
        if not files:
            return
        with suppress(ValueError):
            self._stats = read_stats(self.root)
        is_whole = self._stats.keys() >= self.info["features"].keys()
        if not is_whole or self._stats["index"]["count"] != [self.info["total_frames"]]:
            parts = [read_episode_stats(path) for path in files]
            self._stats = {key: aggregate([part[key] for part in parts]) for key in parts[0]}


def finish_recording(root: str | Path) -> None:
    """Turn the recording of a killed process into an episode; a recording in progress is left alone.

    Raises:
        UserError: the dataset is damaged.
    """
    root = Path(root)
    if not (root / SPOOL_PATH).exists():
        return
    info = read_info(root)
    video = next((feature["info"] for feature in info["features"].values() if feature["dtype"] == "video"), None)
    codec = "libsvtav1" if video is None else schema.codec_named(video["video.codec"])
    with suppress(WriterBusyError):
        DatasetWriter(
            root,
            schema.read_world_spec(info),
            robot_type=info["robot_type"],
            image_mode="image" if video is None else "video",
            codec=codec,
            interventions=schema.HELD in info["features"],
        ).close()


def _row_groups(pngs: Mapping[str, Iterator[bytes]], steps: int) -> Iterator[tuple[slice, dict[str, list[bytes]]]]:
    """The rows of each row group, and their images by camera."""
    begin, size = 0, 0
    held: dict[str, list[bytes]] = {key: [] for key in pngs}
    for step in range(steps):
        for key, pictures in pngs.items():
            held[key].append(next(pictures))
            size += len(held[key][-1])
        if size > _GROUP_BYTES or step == steps - 1:
            yield slice(begin, step + 1), held
            begin, size, held = step + 1, 0, {key: [] for key in pngs}


def _picture_column(pngs: list[bytes], first: int) -> pa.Array:
    """A column of T PNGs, starting with frame `first`, in LeRobot's format for images."""
    names = [f"frame-{first + i:06d}.png" for i in range(len(pngs))]
    return pa.StructArray.from_arrays([pa.array(pngs, pa.binary()), pa.array(names)], ["bytes", "path"])


def _arrow_column(values: NDArray[Any], feature: dict[str, Any]) -> pa.Array:
    """A column [T] or [T, D] with LeRobot's type: a list of fixed size, or a scalar where D = 1."""
    flat = pa.array(values.ravel(), pa.type_for_alias(feature["dtype"]))
    (size,) = feature["shape"]
    return flat if size == 1 else pa.FixedSizeListArray.from_arrays(flat, size)
