"""LeRobotDatasets of a toy SO-101, written from the layout alone: versions 3.0 and 2.1, images and video.

Every frame shows which camera, episode and step it is; the arm's joints move as sines, its gripper too.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rollout.dataset.frames import unchanged_scheduling

NAMES = tuple(f"{joint}.pos" for joint in ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll"))
NAMES += ("gripper.pos",)
TASKS = ("pick the cube", "place the cube")


_OPTIONS = {
    "libsvtav1": {"crf": "10", "preset": "12"},
    "libx264": {"crf": "5"},
    "libx265": {"crf": "5", "x265-params": "log-level=0"},
}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a dataset is laid out, and what is in it."""

    version: Literal["v3.0", "v2.1"] = "v3.0"
    cameras: dict[str, tuple[int, int]] = field(
        default_factory=lambda: {"observation.images.top": (48, 64), "observation.images.wrist": (32, 48)}
    )
    """{feature: (height, width)}"""
    codec: Literal["libsvtav1", "libx264", "libx265"] | None = None
    """Of videos; None for images."""
    fps: float = 30
    lengths: Sequence[int] = (7, 5, 6, 8)
    per_file: int = 3
    """Episodes in a file of version 3."""
    names: Any = field(default_factory=lambda: list(NAMES))
    lists: Literal["fixed", "variable"] = "fixed"
    shuffled: bool = False
    """Whether the rows of a file are in random order."""
    has_state: bool = True
    more_features: dict[str, Any] = field(default_factory=dict)
    task_of: Any = None
    """f(episode, step) -> task_index; one task per episode where None."""

    def task(self, episode: int, step: int) -> int:
        return episode % 2 if self.task_of is None else self.task_of(episode, step)


def state_of(episode: int, step: int) -> NDArray[np.float32]:
    """Degrees; the last is a gripper's 0 to 100."""
    swing = 40 * np.sin(0.3 * step + np.arange(5) + episode)
    return np.append(swing, 50 + 50 * np.sin(0.5 * step + episode)).astype(np.float32)


def action_of(episode: int, step: int) -> NDArray[np.float32]:
    """The next state."""
    return state_of(episode, step + 1)


def picture(camera: int, episode: int, step: int, height: int, width: int) -> NDArray[np.uint8]:
    """Grey levels that say the episode and the step, and a colour of the camera, in smooth patches."""
    frame = np.empty((height, width, 3), np.uint8)
    frame[: height // 2] = 20 + 9 * step % 230
    frame[height // 2 :] = 20 + 40 * episode % 230
    frame[:, width // 2 :, camera % 3] = 200
    return frame


def write_recording(root: Path, layout: Layout) -> Path:
    """Write the dataset; returns its folder."""
    (root / "meta").mkdir(parents=True)
    rows, starts = list[dict[str, Any]](), np.cumsum([0, *layout.lengths]).tolist()
    for episode, length in enumerate(layout.lengths):
        tasks = list(dict.fromkeys(TASKS[layout.task(episode, step)] for step in range(length)))
        rows.append({"episode_index": episode, "tasks": tasks, "length": length, "dataset_from_index": starts[episode]})
    groups = [[row] for row in rows]
    if layout.version == "v3.0":
        groups = [rows[i : i + layout.per_file] for i in range(0, len(rows), layout.per_file)]
    for number, group in enumerate(groups):
        if layout.codec is not None:
            _write_videos(root, layout, number, group)
        path = root / _data_path(layout).format(chunk_index=0, file_index=number, episode_chunk=0, episode_index=number)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(_table(layout, group), path)
        for row in group:
            row |= {"data/chunk_index": 0, "data/file_index": number}
    _write_meta(root, layout, rows)
    return root


def _data_path(layout: Layout) -> str:
    if layout.version == "v3.0":
        return "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
    return "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"


def _video_path(layout: Layout) -> str:
    if layout.version == "v3.0":
        return "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
    return "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"


def _table(layout: Layout, group: list[dict[str, Any]]) -> pa.Table:
    at = [(row["episode_index"], step) for row in group for step in range(row["length"])]
    columns: dict[str, Any] = {"action": _lists(layout, [action_of(*place) for place in at])}
    if layout.has_state:
        columns["observation.state"] = _lists(layout, [state_of(*place) for place in at])
    if layout.codec is None:
        for number, (key, size) in enumerate(layout.cameras.items()):
            pictures = [cv2.imencode(".png", picture(number, *place, *size)[..., ::-1])[1].tobytes() for place in at]
            paths = [f"frame-{step:06d}.png" for _, step in at]
            columns[key] = pa.StructArray.from_arrays([pa.array(pictures), pa.array(paths)], ["bytes", "path"])
    columns["timestamp"] = pa.array(np.array([step / layout.fps for _, step in at], np.float32))
    columns["frame_index"] = [step for _, step in at]
    columns["episode_index"] = [episode for episode, _ in at]
    columns["index"] = list(range(len(at)))
    columns["task_index"] = [layout.task(*place) for place in at]
    table = pa.table(columns)
    return table.take(np.random.default_rng(0).permutation(len(table))) if layout.shuffled else table


def _lists(layout: Layout, vectors: list[NDArray[np.float32]]) -> pa.Array:
    if layout.lists == "variable":
        return pa.array([vector.tolist() for vector in vectors], pa.list_(pa.float32()))
    return pa.FixedSizeListArray.from_arrays(pa.array(np.concatenate(vectors)), len(NAMES))


def _write_videos(root: Path, layout: Layout, number: int, group: list[dict[str, Any]]) -> None:
    for camera, (key, size) in enumerate(layout.cameras.items()):
        place = {"chunk_index": 0, "file_index": number, "episode_chunk": 0, "episode_index": number}
        path = root / _video_path(layout).format(video_key=key, **place)
        path.parent.mkdir(parents=True, exist_ok=True)
        begin = 0
        with av.open(str(path), "w", format="mp4") as container:
            assert layout.codec is not None
            rate = Fraction(layout.fps).limit_denominator(1001)
            stream = container.add_stream(layout.codec, rate, options=_OPTIONS[layout.codec])
            assert isinstance(stream, av.VideoStream)
            stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
            with unchanged_scheduling():
                stream.codec_context.open()
            for row in group:
                row |= {f"videos/{key}/chunk_index": 0, f"videos/{key}/file_index": number}
                row |= {f"videos/{key}/from_timestamp": begin / layout.fps}
                for step in range(row["length"]):
                    frame = av.VideoFrame.from_ndarray(picture(camera, row["episode_index"], step, *size), "rgb24")
                    container.mux(stream.encode(frame))
                begin += row["length"]
                row |= {f"videos/{key}/to_timestamp": begin / layout.fps}
            container.mux(stream.encode())


def _write_meta(root: Path, layout: Layout, rows: list[dict[str, Any]]) -> None:
    dtype = "image" if layout.codec is None else "video"
    vector = {"dtype": "float32", "shape": [len(NAMES)], "names": layout.names}
    features: dict[str, Any] = {"action": vector} | ({"observation.state": vector} if layout.has_state else {})
    features |= {
        key: {"dtype": dtype, "shape": [*size, 3], "names": ["height", "width", "channels"]}
        for key, size in layout.cameras.items()
    }
    features |= {"timestamp": {"dtype": "float32", "shape": [1], "names": None}}
    counted = ("frame_index", "episode_index", "index", "task_index")
    features |= {key: {"dtype": "int64", "shape": [1], "names": None} for key in counted}
    info = {
        "codebase_version": layout.version,
        "robot_type": "so101_follower",
        "total_episodes": len(rows),
        "total_frames": sum(layout.lengths),
        "total_tasks": len(TASKS),
        "chunks_size": 1000,
        "fps": layout.fps,
        "splits": {"train": f"0:{len(rows)}"},
        "data_path": _data_path(layout),
        "video_path": _video_path(layout) if layout.codec else None,
        "features": features | layout.more_features,
    }
    (root / "meta/info.json").write_text(json.dumps(info))
    tasks = [{"task_index": i, "task": task} for i, task in enumerate(TASKS)]
    if layout.version == "v3.0":
        pq.write_table(pa.Table.from_pylist(tasks), root / "meta/tasks.parquet")
        folder = root / "meta/episodes/chunk-000"
        folder.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows), folder / "file-000.parquet")
    else:
        own = [{key: row[key] for key in ("episode_index", "tasks", "length")} for row in rows]
        for name, lines in (("tasks", tasks), ("episodes", own)):
            (root / f"meta/{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
