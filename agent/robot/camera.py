"""OpenCVCamera: the newest frame of a camera with its time, and reconnection after failures.

    reading thread                                   caller
      waits for the camera's next frame                latest(): never waits
      stores (frame, time) for `latest`                connect(): waits for the first frame, or its timeout
      on failure: closes, waits, reopens               close(): ends the thread

The thread survives any failure of the camera: unusable frames (empty, not uint8, an unknown number of channels) are
skipped; after several in a row, as after any failure, the camera is reopened with exponential backoff. If a camera
gives nothing new, `latest` returns its last frame with that frame's time, which becomes stale. The same holds for a
camera that repeats a frame byte for byte for longer than sensor noise allows (`StillPicture`).

Shape letters: H x W pixels.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.robot.clock import Clock, WallClock
from envs.errors import UserError
from envs.types import CameraSpec

FROZEN_AFTER_S = 2.0
"""A frame that is repeated byte for byte for longer counts as old."""

_CLOSE_S = 1.0
"""Timeout for a thread that may hang in its camera."""
_MAX_PAUSE_S = 8.0
"""Longest pause between two attempts to open a camera."""
_UNUSABLE_IN_A_ROW = 10
"""Unusable frames in a row after which a camera is reopened."""

_LOG = logging.getLogger(__name__)


class OpenCVCamera:
    """Anything that cv2.VideoCapture opens: a device's number, a file, a stream's address."""

    def __init__(
        self,
        source: int | str,
        spec: CameraSpec,
        *,
        reconnect_after_s: float = 0.5,
        frozen_after_s: float = FROZEN_AFTER_S,
        clock: Clock | None = None,
    ) -> None:
        """
        Args:
            source: for cv2.VideoCapture.
            spec: name and size of the frames that `latest` gives; the camera's own are resized to it, not cropped.
            reconnect_after_s: pause between a failure and the next attempt; doubled after each failed attempt.
            frozen_after_s: see StillPicture; infinite for a source without noise, e.g. a rendered one.
            clock: of the frames' times; the machine's where None.
        """
        self.spec = spec
        self.num_connections = 0
        """Successful openings of the camera."""
        self.trouble: str | None = None
        """The last failure; None since the last usable frame."""
        self._source = source
        self._pause_s = reconnect_after_s
        self._clock = clock or WallClock()
        self._frozen_after_s = frozen_after_s
        self._still = StillPicture(frozen_after_s)
        self._latest: tuple[NDArray[np.uint8], float] | None = None
        self._first = threading.Event()
        self._closing = threading.Event()  # of the thread that reads now; one that hangs keeps its own
        self._thread: threading.Thread | None = None

    def connect(self, timeout_s: float = 5.0) -> None:
        """Start reading, also again after `close`, and return with the first frame.

        Raises:
            ConnectionError: no frame within the timeout; the message has the last failure.
        """
        self.close()
        self._latest, self._still = None, StillPicture(self._frozen_after_s)
        self._first, self._closing = threading.Event(), threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(self._closing,), name=f"camera {self.spec.name}", daemon=True
        )
        self._thread.start()
        if not self._first.wait(timeout_s):
            self.close()
            why = f": {self.trouble}" if self.trouble else ""
            raise ConnectionError(
                f"camera {self.spec.name!r}: no frame from {self._source!r} within {timeout_s:g} s{why}"
            )

    def latest(self) -> tuple[NDArray[np.uint8], float]:
        """The newest frame, RGB [H, W, 3], and its arrival time in seconds of the clock."""
        assert self._latest is not None, "connect returned"
        return self._latest

    def close(self) -> None:
        """Stop reading."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(_CLOSE_S)

    def _run(self, closing: threading.Event) -> None:
        pause_s = self._pause_s
        while not closing.is_set():
            before = self._latest
            try:
                self._read_until_it_fails(closing)
            except Exception as error:  # drivers raise errors of any type; the camera is reopened
                self._has_trouble(repr(error))
            pause_s = self._pause_s if self._latest is not before else min(2 * pause_s, _MAX_PAUSE_S)
            closing.wait(pause_s)

    def _read_until_it_fails(self, closing: threading.Event) -> None:
        capture = cv2.VideoCapture(self._source)
        try:
            if not capture.isOpened():
                self._has_trouble("it cannot be opened")
                return
            self.num_connections += 1
            unusable = 0
            while not closing.is_set() and unusable < _UNUSABLE_IN_A_ROW:
                done, frame = capture.read()
                if not done:
                    self._has_trouble("it gave no frame")
                    return
                try:
                    picture = resized(to_rgb(frame, bgr=True), self.spec)
                except ValueError as error:
                    self._has_trouble(str(error))
                    unusable += 1
                    continue
                unusable, self.trouble = 0, None
                self._latest = picture, self._still.since_s(picture, self._clock.now_s())
                self._first.set()
        finally:
            capture.release()

    def _has_trouble(self, trouble: str) -> None:
        if trouble != self.trouble:  # once, not with every attempt
            _LOG.warning("camera %r: %s", self.spec.name, trouble)
        self.trouble = trouble


class StillPicture:
    """Detects a frozen camera: how long it has shown an identical frame.

    Because of sensor noise two frames are hardly ever identical byte for byte. Repetition is accepted for a while, for
    a dark, compressed scene may cause it; then the frame has the time at which it first came.
    """

    def __init__(self, frozen_after_s: float = FROZEN_AFTER_S) -> None:
        self._frozen_after_s = frozen_after_s
        self._last: tuple[NDArray[np.uint8], float] | None = None

    def since_s(self, picture: NDArray[np.uint8], now_s: float) -> float:
        """Estimated time of a frame that arrives now: now, or for a frozen camera when it first came."""
        if self._last is None or not np.array_equal(self._last[0], picture):
            self._last = picture.copy(), now_s  # its owner may write the next one into the same memory
        first_s = self._last[1]
        return first_s if now_s - first_s > self._frozen_after_s else now_s


def to_rgb(frame: Any, *, bgr: bool = False) -> NDArray[np.uint8]:
    """A frame as RGB [h, w, 3]: grey is repeated, an alpha channel is dropped.

    Args:
        frame: uint8 [h, w], [h, w, 1], [h, w, 3] or [h, w, 4].
        bgr: whether its channels are in OpenCV's order.

    Raises:
        UserError: the frame is empty, or has another shape or dtype (whose range is unknown).
    """
    if not isinstance(frame, np.ndarray) or not frame.size:
        raise UserError("the frame is empty")
    channels = frame.shape[2] if frame.ndim == 3 else 1
    if frame.dtype != np.uint8 or frame.ndim not in (2, 3) or channels not in (1, 3, 4):
        raise UserError(f"a frame is {frame.dtype} {frame.shape}, expected uint8 (h, w, 3), grey or with opacity")
    if channels == 1:
        return np.repeat(frame.reshape(*frame.shape[:2], 1), 3, axis=2)
    return np.ascontiguousarray(frame[..., 2::-1] if bgr else frame[..., :3])


def resized(frame: NDArray[np.uint8], spec: CameraSpec) -> NDArray[np.uint8]:
    """A frame [h, w, 3] resized to the spec, uint8 [H, W, 3]."""
    if frame.shape[:2] == (spec.height, spec.width):
        return frame
    return np.asarray(cv2.resize(frame, (spec.width, spec.height), interpolation=cv2.INTER_AREA), np.uint8)
