"""Takeover: a person's hand on the arm, as targets that a page sets and the control loop follows.

An axis that shows where it is (agent/robot/types.py) has a target, and the action goes there as fast as an action may:

    displacement   a = clip((target - x) / scale, -1, 1)
    position       a = (target - offset) / scale

One that shows nothing (the turns of a wrist) is nudged: what was asked for is done at most by one whole action per
period, the rest in the next ones. Nobody's key press can run ahead of the arm by more than `_LEAD` actions.

Shape letters: A action dims.
"""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

from agent.robot.types import Reading, RobotSpec

_LEAD = 1.0
"""In actions: where an arm is held up, nudges towards the obstacle do not add up beyond this."""


class Takeover:
    """Operator of agent/robot/watch.py. Everything may be called from any thread."""

    def __init__(self, spec: RobotSpec) -> None:
        """The policy drives."""
        self._spec = spec
        self._lock = threading.Lock()
        self._wanted = False
        self._targets: NDArray[np.float64] | None = None  # [A], from the first period on; for blind axes, what is due
        self._shown: NDArray[np.float64] = np.zeros(len(spec.axes))
        names = spec.world.state.names
        self._columns = [names.index(axis.state) if axis.state is not None else None for axis in spec.axes]
        self._relative = np.array([axis.relative for axis in spec.axes])
        self._blind = np.array([axis.relative and axis.state is None for axis in spec.axes])
        self._scale, self._offset = (
            np.array([getattr(axis, name) for axis in spec.axes]) for name in ("scale", "offset")
        )

    @property
    def targets(self) -> NDArray[np.float64] | None:
        """Where the axes should go, [A] in the units of their positions; None until a period began by hand."""
        with self._lock:
            return None if self._targets is None or not self._wanted else self._targets.copy()

    @property
    def wanted(self) -> bool:
        """Whether a person drives, from the next period on."""
        return self._wanted

    def take(self) -> None:
        """Drive, beginning at rest."""
        with self._lock:
            self._wanted, self._targets = True, None

    def give_back(self) -> None:
        """Let the policy drive."""
        with self._lock:
            self._wanted = False

    def nudge(self, axis: int, actions: float) -> None:
        """Move on by so many actions along a relative axis, e.g. 0.5."""
        with self._lock:
            if self._targets is None:
                return
            ahead = self._targets[axis] - self._shown[axis]
            step = self._scale[axis] * actions
            room = abs(_LEAD * self._scale[axis])
            self._targets[axis] += float(np.clip(ahead + step, -room, room)) - ahead

    def aim(self, axis: int, target: float) -> None:
        """Where an axis should go, in the unit of its position: for one whose state shows it, or that is absolute."""
        with self._lock:
            if self._targets is not None:
                self._targets[axis] = target

    def command(self, axis: int, action: float) -> None:
        """What an absolute axis should do, as an action in [-1, 1]."""
        self.aim(axis, float(self._offset[axis] + self._scale[axis] * action))

    def action(self, reading: Reading, rest: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """See Operator. For the driving thread."""
        with self._lock:
            self._shown = np.array([0.0 if c is None else float(reading.state[c]) for c in self._columns])
            if not self._wanted:
                return None
            start = np.where(self._relative, self._shown, self._offset)  # what is blind shows 0
            if self._targets is None:
                self._targets = start + self._scale * rest
            action = np.clip((self._targets - start) / self._scale, -1.0, 1.0)
            self._targets = np.where(self._blind, self._targets - self._scale * action, self._targets)
            return action.astype(np.float32)
