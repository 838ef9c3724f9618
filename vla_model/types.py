"""Policy: the one way to act, whoever acts: a model, a scripted expert, a remote server.

Shape letters: N worlds, K chunk length, A action dims, E experts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np
from array_api_compat import array_namespace
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
    drawn: Array | None = None
    """What was drawn from the policy's distribution, in the distribution's own terms, float32 [N, K, ...]; None where
    nothing was drawn."""
    log_prob: Array | None = None
    """Log-probability of each action as drawn, whatever the processor and the world clip, float32 [N, K]."""
    value: Array | None = None
    """Return-to-go that the policy expects at each action, float32 [N, K], where it has a value head."""

    def map(self, function: Callable[[Array], Array]) -> ActionChunk:
        """The chunk of function(array) for every array there is."""
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        return ActionChunk(**{name: None if array is None else function(array) for name, array in arrays.items()})

    def spread(self, worlds: Sequence[int], num_worlds: int) -> ActionChunk:
        """The chunk of `num_worlds` worlds in which row i is world worlds[i], and all others are zeros."""
        return self.map(lambda rows: _spread(rows, worlds, num_worlds))


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


def _spread(rows: Array, worlds: Sequence[int], num_worlds: int) -> Array:
    spread = array_namespace(rows).zeros((num_worlds, *rows.shape[1:]), dtype=rows.dtype, device=rows.device)
    spread[list(worlds)] = rows
    return spread
