"""OpenCVCamera: the newest frame of a camera, when it came, and a new connection when the old one breaks.

    reading thread                                   whoever looks
      waits for the camera's next frame                latest(): never waits
      puts (frame, time) where `latest` finds it       connect(): waits for the first frame, or its time limit
      on failure: closes, waits, opens again           close(): ends the thread

A camera that gives nothing new leaves its last frame and that frame's time, so whoever drives sees it grow old. One
that repeats an old picture as a new frame is not noticed.

Shape letters: H x W pixels.
"""

from __future__ import annotations

import threading

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.robot.clock import Clock, WallClock
from envs.types import CameraSpec

_CLOSE_S = 1.0
"""How long a thread is waited for that may hang in its camera."""


class OpenCVCamera:
    """Anything that cv2.VideoCapture opens: a device's number, a file, a stream's address."""

    def __init__(
        self, source: int | str, spec: CameraSpec, *, reconnect_after_s: float = 0.5, clock: Clock | None = None
    ) -> None:
        """
        Args:
            source: for cv2.VideoCapture.
            spec: name and size of the frames that `latest` gives; the camera's own are resized to it, not cropped.
            reconnect_after_s: pause between a failure and the next attempt.
            clock: of the times; the machine's where None.
        """
        self.spec = spec
        self.num_connections = 0
        """How often the camera was opened with success."""
        self._source = source
        self._pause_s = reconnect_after_s
        self._clock = clock or WallClock()
        self._latest: tuple[NDArray[np.uint8], float] | None = None
        self._first = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"camera {spec.name}", daemon=True)

    def connect(self, timeout_s: float = 5.0) -> None:
        """Begin to read, and return with the first frame.

        Raises:
            ConnectionError: none came in time.
        """
        self._thread.start()
        if not self._first.wait(timeout_s):
            self.close()
            raise ConnectionError(f"camera {self.spec.name!r}: no frame from {self._source!r} within {timeout_s:g} s")

    def latest(self) -> tuple[NDArray[np.uint8], float]:
        """The newest frame, RGB [H, W, 3], and when it came, in seconds of the clock."""
        assert self._latest is not None, "connect returned"
        return self._latest

    def close(self) -> None:
        """Read no more."""
        self._closing.set()
        self._thread.join(_CLOSE_S)

    def _run(self) -> None:
        while not self._closing.is_set():
            capture = cv2.VideoCapture(self._source)
            self.num_connections += capture.isOpened()
            while not self._closing.is_set() and self._read(capture):
                self._first.set()
            capture.release()
            self._closing.wait(self._pause_s)

    def _read(self, capture: cv2.VideoCapture) -> bool:
        done, frame = capture.read()
        if done:
            rgb = np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), np.uint8)
            self._latest = resized(rgb, self.spec), self._clock.now_s()
        return done


def resized(frame: NDArray[np.uint8], spec: CameraSpec) -> NDArray[np.uint8]:
    """A frame [h, w, 3] in the size of the spec, uint8 [H, W, 3]."""
    if frame.shape[:2] == (spec.height, spec.width):
        return frame
    return np.asarray(cv2.resize(frame, (spec.width, spec.height), interpolation=cv2.INTER_AREA), np.uint8)
