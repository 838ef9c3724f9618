"""Episodes of a dataset -> the rows of flat files: vectors, and frames at the size that a policy sees.

Every row has its place in the files, so threads decode in parallel and write in any order. Their work is done in C,
outside Python's lock: one thread per core, each with a decoder of one thread. The unit of work is a few consecutive
episodes of one video, or some row groups of one parquet file with pictures.

Shape letters: R rows, H x W pixels of a stored frame, h x w of a recorded one, T frames.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import av
import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from envs.errors import UserError
from rollout.dataset.frames import decode_png, decode_video, rgb_of
from rollout.dataset.read import data_file, readable, start_s, video_file
from vla_model.inputs.fit import Fit, Planes, fitted, planes_of

_EPISODES_PER_JOB = 8
_BYTES_PER_JOB = 64 << 20
_ROWS_AT_ONCE = 32
_LIMITED_RANGE, _BT709 = 1, 1
"""FFmpeg's numbers of a colour range and a colour space."""


@dataclass(frozen=True, kw_only=True)
class CameraFile:
    """A camera's frames, recorded and stored."""

    key: str
    """Of its feature."""
    is_video: bool
    size: tuple[int, int]
    """h and w."""
    stored: tuple[int, ...]
    """(H, W, 3) for RGB, or (3/2 H, W) for resized frames, in YUV 4:2:0."""
    fit: Fit = "stretch"

    @property
    def frame_bytes(self) -> int:
        """Size of a stored frame."""
        return math.prod(self.stored)

    def of_video(self, path: Path, frame: av.VideoFrame) -> NDArray[np.uint8]:
        """A decoded frame as stored.

        Raises:
            UserError: it has another size than info.json says; the message names the file.
        """
        self._check_size(path, frame.height, frame.width)
        if len(self.stored) == 3:
            return rgb_of(frame)
        plain = frame.format.name == "yuv420p" and frame.color_range <= _LIMITED_RANGE and frame.colorspace != _BT709
        return self._resized(_planes(frame) if plain else planes_of(rgb_of(frame)))

    def of_picture(self, path: Path, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """An RGB frame [h, w, 3] as stored.

        Raises:
            UserError: as `of_video`.
        """
        self._check_size(path, *frame.shape[:2])
        return frame if len(self.stored) == 3 else self._resized(planes_of(frame))

    def _check_size(self, path: Path, height: int, width: int) -> None:
        if (height, width) != self.size:
            raise UserError(
                f"{path}: a frame of {self.key} is {width}x{height}, expected {self.size[1]}x{self.size[0]} "
                "(meta/info.json); correct meta/info.json, or record the episode again"
            )

    def _resized(self, planes: Planes) -> NDArray[np.uint8]:
        return fitted(planes, 2 * self.stored[0] // 3, self.stored[1], self.fit)


Episodes: TypeAlias = list[tuple[int, dict[str, Any]]]
"""(number of its first row in the files, its row of meta/episodes)"""
_Frames: TypeAlias = Iterator[tuple[int, Any]]
"""(row, decoded frame)"""


def decode(
    root: Path,
    info: dict[str, Any],
    episodes: Episodes,
    cameras: Sequence[tuple[CameraFile, int]],
    progress: Progress,
) -> None:
    """Decode the frames of some episodes into the cameras' files.

    Args:
        root: of the dataset.
        info: info.json.
        episodes: to decode.
        cameras: with the descriptor of each one's file.
        progress: its last task counts frames.

    Raises:
        UserError: a file is missing or damaged, or a frame has another size than info.json says.
        OSError: a file cannot be written.
    """
    task = progress.task_ids[-1]
    with ThreadPoolExecutor(num_cores(), thread_name_prefix="decoding") as pool:
        futures = [
            pool.submit(_write, camera, file, path, frames, partial(progress.advance, task))
            for camera, file in cameras
            for path, frames in _jobs(root, info, episodes, camera)
        ]
        try:
            for future in futures:
                future.result()
        finally:
            for future in futures:
                future.cancel()


def probe(root: Path, info: dict[str, Any], rows: Sequence[dict[str, Any]], camera: CameraFile) -> list[str]:
    """Errors of the files of a camera, found by decoding one frame of each: a video's last, a picture file's first."""
    ends: dict[Path, dict[str, Any]] = {}
    for row in rows:
        path = video_file(root, info, row, camera.key) if camera.is_video else data_file(root, info, row)
        before = ends.setdefault(path, row)
        if camera.is_video and start_s(row, camera.key) > start_s(before, camera.key):
            ends[path] = row

    def error_of(path: Path, row: dict[str, Any]) -> str | None:
        time_s = start_s(row, camera.key) + (row["length"] - 1) / info["fps"]
        try:
            with readable(path):
                if camera.is_video:
                    (video,) = decode_video(path, np.array([time_s]), info["fps"])
                    camera.of_video(path, video)
                else:
                    _, picture = next(_pictures(root, path, camera, [0], [(0, row)]))
                    camera.of_picture(path, picture)
        except UserError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(num_cores()) as pool:
        return [error for error in pool.map(error_of, ends, ends.values()) if error is not None]


def num_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def decoding_bar(name: str, num_frames: int, *, quiet: bool) -> Progress:
    """A progress bar on standard error, whose only task counts frames."""
    progress = Progress(console=Console(stderr=True), transient=True, disable=quiet)
    progress.add_task(f"decoding {name}", total=num_frames)
    return progress


def _write(camera: CameraFile, file: int, path: Path, frames: _Frames, advance: Callable[[], None]) -> None:
    store = camera.of_video if camera.is_video else camera.of_picture
    for row, frame in frames:
        os.pwrite(file, np.ascontiguousarray(store(path, frame)).data, row * camera.frame_bytes)
        advance()


def _jobs(root: Path, info: dict[str, Any], episodes: Episodes, camera: CameraFile) -> Iterator[tuple[Path, _Frames]]:
    """The work for one camera: files, and their frames, which are decoded on demand."""
    by_path: dict[Path, Episodes] = {}
    for first, row in episodes:
        path = video_file(root, info, row, camera.key) if camera.is_video else data_file(root, info, row)
        by_path.setdefault(path, []).append((first, row))
    for path, of_file in by_path.items():
        if camera.is_video:
            of_file.sort(key=lambda episode: start_s(episode[1], camera.key))
            for i in range(0, len(of_file), _EPISODES_PER_JOB):
                yield path, _video_frames(path, info["fps"], camera, of_file[i : i + _EPISODES_PER_JOB])
        else:
            for groups in _row_groups(path):
                yield path, _pictures(root, path, camera, groups, of_file)


def _video_frames(path: Path, fps: float, camera: CameraFile, episodes: Episodes) -> _Frames:
    rows = [np.arange(first, first + row["length"]) for first, row in episodes]
    times_s = [start_s(row, camera.key) + np.arange(row["length"]) / fps for _, row in episodes]
    with readable(path):
        decoded = decode_video(path, np.concatenate(times_s), fps)
        yield from zip(np.concatenate(rows).tolist(), decoded, strict=True)


def _row_groups(path: Path) -> Iterator[list[int]]:
    """The row groups of a parquet file, in parts of some size."""
    with readable(path):
        metadata = pq.read_metadata(path)
    groups, size = list[int](), 0
    for group in range(metadata.num_row_groups):
        groups.append(group)
        size += metadata.row_group(group).total_byte_size
        if size >= _BYTES_PER_JOB or group == metadata.num_row_groups - 1:
            yield groups
            groups, size = [], 0


def _pictures(root: Path, path: Path, camera: CameraFile, groups: list[int], episodes: Episodes) -> _Frames:
    places = {row["episode_index"]: (first, row["length"]) for first, row in episodes}
    columns = [camera.key, "episode_index", "frame_index"]
    with readable(path), pq.ParquetFile(path) as parquet:
        for batch in parquet.iter_batches(_ROWS_AT_ONCE, row_groups=groups, columns=columns):
            for picture, episode, step in zip(*(batch[name].to_pylist() for name in columns), strict=True):
                first, length = places.get(episode, (0, 0))
                if step < length:
                    # A picture is stored itself, or as the path of its file.
                    encoded = picture["bytes"] or (root / picture["path"]).read_bytes()
                    yield first + step, decode_png(encoded)


def _planes(frame: av.VideoFrame) -> Planes:
    """The planes of a decoded frame, without a copy."""
    y, u, v = (
        np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width]
        for plane in frame.planes
    )
    return y, u, v
