"""Operator and Watcher: a person who may take over a drive, and an observer of its periods.

The driving thread calls both once per control period; they return well within it.

Shape letters: A action dims, K chunk size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from agent.robot.inference import Answer
from agent.robot.safety import Intervention, Reason
from agent.robot.types import Reading


class Operator(Protocol):
    """A person who may act in place of the policy."""

    def action(self, reading: Reading, rest: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """The action of this period, [A], finite; None while the policy drives.

        Args:
            reading: valid and new; otherwise the robot holds, and this is not called.
            rest: the action that holds the robot, [A].
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Period:
    """A finished control period."""

    number: int
    """Counted from 0."""
    time_s: float
    """When it began, since the drive's first period."""
    late_s: float
    """Delay of its beginning against the schedule."""
    reading: Reading
    sent: NDArray[np.float32]
    """The executed action, [A]."""
    by_hand: bool
    """Whether a person acted."""
    holding: Reason | None
    """Why the robot holds; None while it moves."""
    answer: Answer | None
    """The newest valid one; None if there is none yet."""
    moves_since: float
    """Moves since the answer's observation: the index of its current action."""
    interventions: tuple[Intervention, ...]
    """Of this period only."""


class Watcher(Protocol):
    """Called with every period."""

    def __call__(self, period: Period) -> None: ...
