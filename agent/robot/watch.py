"""Who else takes part in a drive: a person who takes it over, and whoever watches.

Both are asked and told by the driving thread, once per control period, and return well within it.

Shape letters: A action dims, K chunk length.
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
        """What the robot should do in this period, [A], finite; None while the policy drives.

        Args:
            reading: sound and new; where it is not, nobody is asked and the robot holds.
            rest: the action that leaves everything where it is, [A].
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Period:
    """One control period that is over."""

    number: int
    """Counted from 0."""
    time_s: float
    """Of its beginning, since the drive's first period."""
    late_s: float
    """How much later it began than it should have."""
    reading: Reading
    sent: NDArray[np.float32]
    """[A]"""
    by_hand: bool
    """Whether a person acted."""
    holding: Reason | None
    """Why the robot rests; None while it moves."""
    answer: Answer | None
    """The newest that could be executed; None while there was none."""
    moves_since: float
    """Made since the observation that the answer is to: which of its actions is due."""
    interventions: tuple[Intervention, ...]
    """Of this period alone."""


class Watcher(Protocol):
    """Sees every period."""

    def __call__(self, period: Period) -> None: ...
