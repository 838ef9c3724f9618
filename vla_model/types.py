"""Policy: the one way to act, whoever acts: a model, a scripted expert, a remote server.

Shape letters: n worlds that are decided for, K chunk length, A action dims, E experts.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError
from envs.types import Array, Observation


@dataclass(frozen=True, kw_only=True)
class ActionChunk:
    """What a policy wants done next in each of n worlds."""

    actions: Array
    """To execute, float32 [n, K, A] in [-1, 1]."""
    labels: Array | None = None
    """What a learner should imitate here, float32 [n, K, A], where it differs from what is executed."""
    expert_usage: NDArray[np.float32] | None = None
    """Share of each expert in the decision, [n, layers, E], where the policy has experts: for reports."""
    sampled: Array | None = None
    """What was sampled from the policy's distribution, in the distribution's own terms, float32 [n, K, ...]; None where
    nothing was sampled."""
    log_prob: Array | None = None
    """Log-probability of each action as sampled, whatever the processor and the world clip, float32 [n, K]."""
    value: Array | None = None
    """Return-to-go that the policy expects at each action, float32 [n, K], where it has a value head."""

    def map(self, function: Callable[[Array], Array]) -> ActionChunk:
        """The chunk of function(array) for every array there is."""
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        return ActionChunk(**{name: None if array is None else function(array) for name, array in arrays.items()})


class Policy(Protocol):
    """Acts in several worlds at once. Worlds are told apart by their index, so a policy may keep state per world.

    Example (episodes begin in the worlds 0 to 2, and the one in world 1 ends first):
        policy.begin(range(3), instructions, seeds)
        policy.act(range(3), observation)  # a chunk of three rows
        policy.act([0, 2], rows_of(observation, [0, 2]))  # of two: those of the worlds 0 and 2
    """

    version: int
    """Version of the weights; -1 where there are none."""

    def begin(self, worlds: Sequence[int], instructions: tuple[str, ...], seeds: tuple[int, ...]) -> None:
        """Episodes begin in these worlds: forget theirs, and prepare what an instruction lets one prepare."""
        ...

    def act(self, worlds: Sequence[int], observation: Observation) -> ActionChunk:
        """Actions for these n worlds, in all of which an episode began: row i of the observation and of the chunk is
        world worlds[i].

        Worlds that are not named keep their episodes, and a decision depends on its own row and world alone. A caller
        may execute only the first k actions of each chunk.
        """
        ...


def check_worlds(worlds: Sequence[int], observation: Observation, begun: Container[int]) -> None:
    """
    Args:
        worlds: that are to be decided for.
        observation: of them.
        begun: the worlds in which an episode began.

    Raises:
        UserError: the observation has not one row for each of the worlds, or one of them comes twice or never began.
    """
    num_rows = len(observation["state"])
    if len(worlds) != num_rows or len(set(worlds)) != num_rows:
        raise UserError(f"the observation has {num_rows} rows, expected one for each of the worlds {list(worlds)}")
    if unknown := [world for world in worlds if world not in begun]:
        raise UserError(f"no episode began in worlds {unknown}; call begin first")
