"""Clock and StopSwitch: a drive waits by the clock, and the switch ends any wait.

The simulated clock (benchmarks/simulated.py) jumps instead of waiting.
"""

from __future__ import annotations

import queue
import time
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Stop:
    """Why a drive should end at once, and its success flag, if known."""

    reason: str
    success: bool | None = None


class StopSwitch:
    """Set from any thread, polled by the driving thread. The first reason is kept.

    It is a SimpleQueue because `put` is reentrant, as signal handlers need; an Event's `set` is not.
    """

    def __init__(self) -> None:
        self._stops: queue.SimpleQueue[Stop] = queue.SimpleQueue()
        self._thrown: Stop | None = None

    def throw(self, stop: Stop) -> None:
        """End the drive. From any thread, or a signal's handler."""
        self._stops.put(stop)

    def wait(self, seconds: float = 0.0) -> Stop | None:
        """The stop, as soon as there is one; None after that many seconds. For the driving thread."""
        if self._thrown is None:
            try:
                self._thrown = self._stops.get(timeout=seconds)
            except queue.Empty:
                return None
        return self._thrown


class Clock(Protocol):
    """Seconds since an arbitrary start."""

    def now_s(self) -> float: ...

    def wait_until(self, time_s: float, switch: StopSwitch) -> Stop | None:
        """Return at that time and not before, or as soon as the switch is thrown, with the stop."""
        ...


class WallClock:
    """The machine's monotonic clock."""

    def now_s(self) -> float:
        return time.monotonic()

    def wait_until(self, time_s: float, switch: StopSwitch) -> Stop | None:
        while (stop := switch.wait(max(0.0, time_s - time.monotonic()))) is None and time.monotonic() < time_s:
            pass
        return stop
