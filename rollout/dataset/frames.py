"""Camera frames <-> bytes on disk: PNG (lossless) or mp4 (small, lossy).

Video follows LeRobot: yuv420p, a key frame every second frame so that any frame is found by decoding at most two, one
mp4 per episode with frame t at t / fps. One thread each: encoders that use every core starve the simulators.

Shape letters: T frames of one episode, H x W pixels.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError
from rollout.dataset.schema import VideoCodec

# Otherwise SVT-AV1 prints its settings to stderr for every file; it has no other switch.
os.environ.setdefault("SVT_LOG", "1")

TOLERANCE_S = 1e-4
"""How far a frame's time stamp may be from its time: LeRobot's default."""

_FRACTION = 1001
"""Largest denominator of a video's rate: 30000/1001 is the 29.97 of cameras."""
_OPTIONS: dict[str, dict[str, str]] = {
    "libsvtav1": {"g": "2", "crf": "30", "preset": "12", "svtav1-params": "lp=1"},
    # Reordered frames (B-frames) would shift the time stamps within the file.
    "h264": {"g": "2", "crf": "23", "bf": "0", "threads": "1"},
}


class Frames(Protocol):
    """The frames of one camera in one episode: an array, or a reader of frames on disk."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(T, H, W, 3)."""
        ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        """Every frame, RGB [H, W, 3]."""
        ...


def encode_png(frame: NDArray[np.uint8]) -> bytes:
    """PNG of an RGB frame [H, W, 3]."""
    done, encoded = cv2.imencode(".png", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    assert done
    return encoded.tobytes()


def decode_png(encoded: bytes) -> NDArray[np.uint8]:
    """The RGB frame [H, W, 3] of a PNG (or JPEG).

    Raises:
        UserError: not an image.
    """
    frame = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR_RGB)
    if frame is None:
        raise UserError(f"{len(encoded)} bytes that should be a PNG could not be decoded")
    return np.asarray(frame, np.uint8)


def encode_video(path: Path, frames: Iterable[NDArray[np.uint8]], fps: float, codec: VideoCodec) -> None:
    """Write RGB frames, each [H, W, 3] with H and W even, as one mp4."""
    rate = Fraction(fps).limit_denominator(_FRACTION)
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream(codec, rate, options=_OPTIONS[codec])
        stream.pix_fmt = "yuv420p"
        for number, frame in enumerate(frames):
            if not number:
                stream.height, stream.width = frame.shape[:2]
                with unchanged_scheduling():
                    stream.codec_context.open()
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


@contextmanager
def unchanged_scheduling() -> Generator[None]:
    """Give this process's threads the calling thread's scheduling policy afterwards.

    SVT-AV1, where it may (as root, so in most containers), makes the calling thread and its own real-time threads of
    the highest priority, which would run before every other process, control loops included.
    """
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    others = _threads()
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameters)
        for thread in _threads() - others:
            with suppress(ProcessLookupError):  # it has ended meanwhile
                os.sched_setscheduler(thread, policy, parameters)


def _threads() -> set[int]:
    """Ids of this process's threads."""
    return {int(thread.name) for thread in Path("/proc/self/task").iterdir()}


def rgb_of(frame: av.VideoFrame) -> NDArray[np.uint8]:
    """A decoded frame as RGB [H, W, 3]."""
    return np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)


def decode_video(path: Path, times_s: NDArray[np.float64], fps: float) -> Iterator[av.VideoFrame]:
    """The frames of an mp4 at ascending times.

    Args:
        path: of the file.
        times_s: of the frames.
        fps: rate of the video; a frame may be a quarter of a period off, e.g. after videos were joined.

    Raises:
        UserError: there is no video in it, or no frame at a requested time.
    """
    tolerance_s = max(TOLERANCE_S, 0.25 / fps)
    with av.open(str(path)) as container:
        if not container.streams.video:
            raise UserError(f"{path} holds no video")
        stream = container.streams.video[0]
        stream.thread_count = 1
        assert stream.time_base is not None
        # To the last key frame before it, or itself: an episode begins with one, and need not decode those before.
        container.seek(int((times_s[0] + tolerance_s) / stream.time_base), stream=stream)
        yield from _pick(container.decode(stream), times_s, tolerance_s, path)


def _pick(
    decoded: Iterable[av.VideoFrame], times_s: NDArray[np.float64], tolerance_s: float, path: Path
) -> Iterator[av.VideoFrame]:
    wanted = iter(times_s)
    time_s = next(wanted)
    for frame in decoded:
        assert frame.time is not None
        if frame.time < time_s - tolerance_s:
            continue
        if frame.time > time_s + tolerance_s:
            raise UserError(f"{path} has no frame at {time_s:.4f} s; the next one is at {frame.time:.4f} s")
        yield frame
        following = next(wanted, None)
        if following is None:
            return
        time_s = following
    raise UserError(f"{path} ends before {time_s:.4f} s")
