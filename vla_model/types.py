"""Policy: the one way to act, whoever acts: a model, a scripted expert, a remote server.

Shape letters: N worlds, K chunk length, A action dims, E experts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from envs.types import Array, Observation


@dataclass(frozen=True, kw_only=True)
class ActionChunk:
    """What a policy wants done next in each of N worlds."""

    actions: Array
    """To execute, float32 [N, K, A] in [-1, 1]."""
    labels: Array | None = None
    """What a learner should imitate here, float32 [N, K, A], where it differs from what is executed."""
    expert_usage: NDArray[np.float32] | None = None
    """Share of each expert in the decision, [N, layers, E], where the policy has experts: for reports."""


class Policy(Protocol):
    """Acts in N worlds at once. Worlds are told apart by their index, so a policy may keep state per world."""

    version: int
    """Version of the weights; -1 where there are none."""

    def begin(self, worlds: NDArray[np.int64], instructions: tuple[str, ...], seeds: tuple[int, ...]) -> None:
        """Episodes begin in these worlds: forget theirs, and prepare what an instruction lets one prepare."""
        ...

    def act(self, observation: Observation) -> ActionChunk:
        """Actions for all N worlds of the observation; a caller may execute only the first k of each chunk."""
        ...
