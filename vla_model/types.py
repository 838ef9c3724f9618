"""Policy: the interface of everything that acts: a model, a scripted expert, a remote server.

Shape letters: n worlds in a call, K chunk size, A action dims, E experts.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from operator import itemgetter
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError
from envs.types import Array, Observation


@dataclass(frozen=True, kw_only=True)
class ActionChunk:
    """The next actions of each of n worlds."""

    actions: Array
    """To execute, float32 [n, K, A] in [-1, 1]."""
    labels: Array | None = None
    """Targets for imitation, float32 [n, K, A], where they differ from the executed actions."""
    expert_usage: NDArray[np.float32] | None = None
    """Share of each expert in the top-k choices, [n, layers, E], where the policy has experts: for reports."""
    sampled: Array | None = None
    """The sample in the distribution's own terms (Sample.sampled), float32 [n, K, ...]; None where the policy took the
    mode."""
    log_prob: Array | None = None
    """Log-probability of each action as sampled, before any clipping, float32 [n, K]."""
    value: Array | None = None
    """Estimated return-to-go at each action, float32 [n, K], where the policy has a value head."""
    failed: Mapping[int, str] = field(default_factory=dict)
    """{row: reason} of the worlds for which the policy has no action, e.g. because its server gave none; the row's
    actions are not executed, and its episode ends as broken."""

    def map(self, function: Callable[[Array], Array]) -> ActionChunk:
        """A chunk of function(array) for every array that is not None."""
        arrays = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "failed"}
        mapped = {name: None if array is None else function(array) for name, array in arrays.items()}
        return ActionChunk(**mapped, failed=self.failed)

    def rows(self, first: int, stop: int) -> ActionChunk:
        """The chunk of the rows first..stop - 1."""
        failed = {row - first: why for row, why in self.failed.items() if first <= row < stop}
        return replace(self.map(itemgetter(slice(first, stop))), failed=failed)


class Policy(Protocol):
    """Acts in several worlds at once. A world is identified by its index, so a policy may keep state per world.

    Example (episodes begin in the worlds 0 to 2, and the one in world 1 ends first):

        policy.begin(range(3), instructions, seeds)
        policy.act(range(3), observation)  # a chunk of three rows
        policy.act([0, 2], rows_of(observation, [0, 2]))  # two rows: worlds 0 and 2
    """

    version: int
    """Version of the weights; -1 without weights."""

    def begin(self, worlds: Sequence[int], instructions: tuple[str, ...], seeds: tuple[int, ...]) -> None:
        """Episodes begin in these worlds: reset their state, and compute what depends on the instruction alone."""
        ...

    def act(self, worlds: Sequence[int], observation: Observation) -> ActionChunk:
        """Actions for these n worlds, in all of which an episode began: row i of the observation and of the chunk is
        world worlds[i].

        Other worlds keep their episodes, and a world's actions depend on its own row and state alone. A caller may
        execute only the first k actions of each chunk.
        """
        ...


def check_worlds(worlds: Sequence[int], observation: Observation, begun: Container[int]) -> None:
    """
    Args:
        worlds: to act in.
        observation: of these worlds.
        begun: the worlds in which an episode began.

    Raises:
        UserError: the observation does not have one row per world, or a world comes twice or never began.
    """
    num_rows = len(observation["state"])
    if len(worlds) != num_rows or len(set(worlds)) != num_rows:
        raise UserError(f"the observation has {num_rows} rows, expected one for each of the worlds {list(worlds)}")
    if unknown := [world for world in worlds if world not in begun]:
        raise UserError(f"no episode began in worlds {unknown}; call begin first")
