"""Takeover: teleoperation of the arm, as targets that a page sets and the control loop follows.

An axis with a measured position (agent/robot/types.py) has a target, approached as fast as the action range allows:

    displacement   a = clip((target - x) / scale, -1, 1)
    position       a = (target - offset) / scale

One without (the wrist's rotations) is nudged: a requested displacement is executed by at most one whole action per
period. Key presses accumulate to at most `_LEAD` actions ahead of the arm.

Shape letters: A action dims.
"""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

from agent.robot.types import Reading, RobotSpec

_LEAD = 1.0
"""In actions: if an arm is blocked, nudges towards the obstacle accumulate at most to this."""


class Takeover:
    """Operator of agent/robot/watch.py. Everything may be called from any thread."""

    def __init__(self, spec: RobotSpec) -> None:
        """At first the policy drives."""
        self._spec = spec
        self._lock = threading.Lock()
        self._wanted = False
        self._targets: NDArray[np.float64] | None = (
            None  # [A], from the first period on; for blind axes, the rest of the nudges
        )
        self._shown: NDArray[np.float64] = np.zeros(len(spec.axes))

    @property
    def targets(self) -> NDArray[np.float64] | None:
        """Targets of the axes, [A] in the units of their positions; None until the first period of a takeover."""
        with self._lock:
            return None if self._targets is None or not self._wanted else self._targets.copy()

    @property
    def wanted(self) -> bool:
        """Whether a person drives, from the next period on."""
        return self._wanted

    def take(self) -> None:
        """Take over, starting at rest."""
        with self._lock:
            self._wanted, self._targets = True, None

    def give_back(self) -> None:
        """Let the policy drive."""
        with self._lock:
            self._wanted = False

    def nudge(self, axis: int, actions: float) -> None:
        """Move the target of a relative axis by a number of actions, e.g. 0.5."""
        with self._lock:
            if self._targets is None:
                return
            ahead = self._targets[axis] - self._shown[axis]
            step = self._spec.scale[axis] * actions
            room = abs(_LEAD * self._spec.scale[axis])
            self._targets[axis] += float(np.clip(ahead + step, -room, room)) - ahead

    def aim(self, axis: int, target: float) -> None:
        """Set the target of an axis, in the unit of its position: absolute, or with a measured position."""
        with self._lock:
            if self._targets is not None:
                self._targets[axis] = target

    def command(self, axis: int, action: float) -> None:
        """Set the target of an absolute axis, as an action in [-1, 1]."""
        self.aim(axis, float(self._spec.offset[axis] + self._spec.scale[axis] * action))

    def action(self, reading: Reading, rest: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """See Operator. For the driving thread."""
        spec = self._spec
        with self._lock:
            self._shown = spec.position(reading.state)
            if not self._wanted:
                return None
            start = np.where(spec.relative, self._shown, spec.offset)  # 0 for blind axes
            if self._targets is None:
                self._targets = start + spec.scale * rest
            action = np.clip((self._targets - start) / spec.scale, -1.0, 1.0)
            blind = spec.relative & ~spec.measured
            self._targets = np.where(blind, self._targets - spec.scale * action, self._targets)
            return action.astype(np.float32)
