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
from itertools import islice
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
_FRAMES_PER_ADVANCE = 32
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
    """(H, W, 3) for RGB, or (3/2 H, W) for YUV 4:2:0."""
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
_Frames: TypeAlias = Iterator[tuple[int, NDArray[np.uint8]]]
"""(row, frame as stored)"""


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
            pool.submit(_write, camera, file, frames, partial(progress.advance, task))
            for camera, file in cameras
            for frames in _jobs(root, info, episodes, camera)
        ]
        try:
            for future in futures:
                future.result()
        finally:
            for future in futures:
                future.cancel()


def probe(
    root: Path, info: dict[str, Any], rows: Sequence[dict[str, Any]], camera: CameraFile, *, every_frame: bool = False
) -> dict[str, list[int]]:
    """{error: numbers of the episodes with it} of a camera's frames.

    Args:
        root: of the dataset.
        info: info.json.
        rows: the episodes.
        camera: its frames.
        every_frame: decode all of them; else one of each file, a video's last or the first picture, and all of a file
            in which that one has an error.
    """
    by_path = _by_path(root, info, [(0, row) for row in rows], camera)

    def errors_of(path: Path) -> Iterator[tuple[str, int]]:
        of_file = by_path[path]
        if every_frame or _error_of(_one_frame(root, path, info["fps"], camera, of_file)):
            for episode in of_file:
                if error := _error_of(_frames(root, path, info["fps"], camera, [episode])):
                    yield error, episode[1]["episode_index"]

    errors: dict[str, list[int]] = {}
    with ThreadPoolExecutor(num_cores()) as pool:
        for found in pool.map(lambda path: list(errors_of(path)), by_path):
            for error, episode in found:
                errors.setdefault(error, []).append(episode)
    return errors


def num_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def decoding_bar(name: str, num_frames: int, *, quiet: bool) -> Progress:
    """A progress bar on standard error, whose only task counts frames; without a terminal a line at the beginning."""
    console = Console(stderr=True)
    is_shown = console.is_terminal and not quiet
    if not (is_shown or quiet):
        console.print(f"decoding {num_frames:,} frames of {name}", highlight=False, markup=False)
    progress = Progress(console=console, transient=True, disable=not is_shown)
    progress.add_task(f"decoding {name}", total=num_frames)
    return progress


class _EpisodeError(UserError):
    """An episode's frames cannot be decoded."""

    def __init__(self, reason: UserError, episode: int) -> None:
        super().__init__(str(reason))
        self.episode = episode


def _write(camera: CameraFile, file: int, frames: _Frames, advance: Callable[[int], None]) -> None:
    count = 0
    try:
        for row, frame in frames:
            os.pwrite(file, np.ascontiguousarray(frame).data, row * camera.frame_bytes)
            count += 1
            if count % _FRAMES_PER_ADVANCE == 0:
                advance(_FRAMES_PER_ADVANCE)
        advance(count % _FRAMES_PER_ADVANCE)
    except _EpisodeError as error:
        raise UserError(
            f"{error}. This is episode {error.episode}, which --without-episodes {error.episode} leaves out; `llamarm "
            "data --every-frame` lists all such episodes"
        ) from error


def _error_of(frames: _Frames) -> str | None:
    try:
        for _ in frames:
            pass
    except UserError as error:
        return str(error)
    return None


def _by_path(root: Path, info: dict[str, Any], episodes: Episodes, camera: CameraFile) -> dict[Path, Episodes]:
    """The episodes in each of a camera's files, in the order of their frames."""
    found: dict[Path, Episodes] = {}
    for first, row in episodes:
        path = video_file(root, info, row, camera.key) if camera.is_video else data_file(root, info, row)
        found.setdefault(path, []).append((first, row))
    for of_file in found.values() if camera.is_video else ():
        of_file.sort(key=lambda episode: start_s(episode[1], camera.key))
    return found


def _jobs(root: Path, info: dict[str, Any], episodes: Episodes, camera: CameraFile) -> Iterator[_Frames]:
    """The work for one camera: its frames, which are decoded on demand."""
    for path, of_file in _by_path(root, info, episodes, camera).items():
        if camera.is_video:
            for i in range(0, len(of_file), _EPISODES_PER_JOB):
                yield _video_frames(path, info["fps"], camera, of_file[i : i + _EPISODES_PER_JOB])
        else:
            for groups in _row_groups(path):
                yield _pictures(root, path, camera, groups, of_file)


def _frames(root: Path, path: Path, fps: float, camera: CameraFile, episodes: Episodes) -> _Frames:
    """All frames of some episodes of one file."""
    if camera.is_video:
        yield from _video_frames(path, fps, camera, episodes)
    else:
        for groups in _row_groups(path):
            yield from _pictures(root, path, camera, groups, episodes)


def _one_frame(root: Path, path: Path, fps: float, camera: CameraFile, episodes: Episodes) -> _Frames:
    """The last frame of a video, or the first picture of a file."""
    if not camera.is_video:
        yield from islice(_frames(root, path, fps, camera, episodes), 1)
        return
    first, row = episodes[-1]
    time_s = start_s(row, camera.key) + (row["length"] - 1) / fps
    for frame in _decoded(path, np.array([time_s]), fps):
        yield first, camera.of_video(path, frame)


def _video_frames(path: Path, fps: float, camera: CameraFile, episodes: Episodes) -> _Frames:
    rows = [(first + step, row["episode_index"]) for first, row in episodes for step in range(row["length"])]
    times_s = [start_s(row, camera.key) + np.arange(row["length"]) / fps for _, row in episodes]
    decoded = _decoded(path, np.concatenate(times_s), fps)
    for number, episode in rows:
        try:
            frame = camera.of_video(path, next(decoded))
        except UserError as error:
            raise _EpisodeError(error, episode) from error
        yield number, frame


def _decoded(path: Path, times_s: NDArray[np.float64], fps: float) -> Iterator[av.VideoFrame]:
    with readable(path):
        yield from decode_video(path, times_s, fps)


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
    for picture, episode, step in _stored_pictures(path, camera.key, groups):
        first, length = places.get(episode, (0, 0))
        if step >= length:
            continue
        try:
            with readable(path):
                # A picture is stored itself, or as the path of its file.
                frame = decode_png(picture["bytes"] or (root / picture["path"]).read_bytes())
            yield first + step, camera.of_picture(path, frame)
        except UserError as error:
            raise _EpisodeError(error, episode) from error


def _stored_pictures(path: Path, key: str, groups: list[int]) -> Iterator[tuple[dict[str, Any], int, int]]:
    """Each picture as stored, with its episode_index and frame_index."""
    columns = [key, "episode_index", "frame_index"]
    with readable(path), pq.ParquetFile(path) as parquet:
        for batch in parquet.iter_batches(_ROWS_AT_ONCE, row_groups=groups, columns=columns):
            yield from zip(*(batch[name].to_pylist() for name in columns), strict=True)


def _planes(frame: av.VideoFrame) -> Planes:
    """The planes of a decoded frame, without a copy."""
    y, u, v = (
        np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width]
        for plane in frame.planes
    )
    return y, u, v
