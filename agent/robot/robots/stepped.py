"""Simulators as robots: real time for things that only know steps.

A simulator takes a step per control period, in the driving thread, when it is looked at or sent something: as many as
are due by the clock. A period in which no action came is a step at rest, as a real arm would spend it. Time begins with
the first action, so that nothing happens while a policy is still being loaded.

Period n lasts from (n - 1/2) dt to (n + 1/2) dt after the first action: an action that comes every dt, a little early
or late, is the action of its own period.

Shape letters: k periods, A action dims, S state dims.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.robot.clock import Clock, WallClock
from agent.robot.types import Reading, RobotSpec


class SteppedRobot(ABC):
    """Robot of agent/robot/types.py over something with steps."""

    def __init__(self, spec: RobotSpec, clock: Clock | None) -> None:
        self.spec = spec
        self._clock = clock or WallClock()
        self._relative = np.array([axis.relative for axis in spec.axes])
        self._rewind()

    def _rewind(self) -> None:
        self._reading: Reading | None = None
        self._began_s: float | None = None  # the time of the first action
        self._period = 0
        self._pending: NDArray[np.float32] | None = None
        self._last = np.zeros(len(self.spec.axes), np.float32)

    @abstractmethod
    def _begin(self) -> dict[str, Any]:
        """Begin an episode; returns the fields of its first Reading but the time."""

    @abstractmethod
    def _steps(self, actions: NDArray[np.float32]) -> dict[str, Any]:
        """Take k steps [k, A], fewer if the episode ends; returns the fields of a Reading but the time."""

    def connect(self) -> None:
        """Begin an episode."""
        self._rewind()
        self._show(self._begin())

    def observe(self) -> Reading:
        """What there is to see now.

        Raises:
            ConnectionError: not connected.
        """
        self._catch_up()
        assert self._reading is not None
        return self._reading

    def act(self, action: NDArray[np.float32]) -> NDArray[np.float32]:
        """Execute an action [A] in this period.

        Raises:
            ConnectionError: not connected.
        """
        if self._began_s is None:
            self._began_s = self._clock.now_s()
        self._catch_up()
        self._pending = self._last = action.clip(-1.0, 1.0)  # there are no others in a simulator
        return self._last

    def stop(self) -> None:
        """Rest, also in what is left of this period."""
        self._pending = None

    def disconnect(self) -> None:
        """Show nothing any more."""
        self._reading = None

    def _catch_up(self) -> None:
        """Take the steps that are due, and note when."""
        if self._reading is None:
            raise ConnectionError(f"{self.spec.name} is not connected")
        due = 0
        if self._began_s is not None:
            now = math.floor((self._clock.now_s() - self._began_s) / self.spec.world.control_dt_s + 0.5)
            due, self._period = now - self._period, now
        if due and self._reading.ended is None:
            rest = np.where(self._relative, 0.0, self._last).astype(np.float32)
            first = rest if self._pending is None else self._pending
            self._show(self._steps(np.stack([first, *[rest] * (due - 1)])))
            self._pending = None
        self._reading = dataclasses.replace(self._reading, time_s=self._clock.now_s())

    def _show(self, fields: Mapping[str, Any]) -> None:
        self._reading = Reading(**fields, time_s=self._clock.now_s())
