"""Practice: the episodes from which a policy learns by itself, each iteration's own.

Every iteration begins from first states that no other one has, so nothing is learned by heart, and which ones they are
depends on the iteration alone: an iteration that is done again after a crash sees the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from agent.evaluate import check_training_seed
from envs.make import Device
from envs.types import EpisodeSpec
from rollout.types import Trajectory

ROUNDS = 16
"""Rounds of episodes that an iteration may ask for."""


@dataclass(frozen=True, kw_only=True)
class PracticeConfig:
    """What to practise."""

    world: str = "tabletop"
    """Name for `make_world`."""
    device: Device = "cpu"
    """Where its simulator computes, in practice and evaluation."""
    tasks: tuple[str, ...] = ()
    """Empty for all tasks of the world."""
    variation: str = "train"
    episodes_per_task: int = 32
    """In an iteration."""
    first_seed: int = 100_000
    """Seeds count up from here, stay below evaluation's, and lie above those of demonstrations."""
    num_worlds: int = 16
    """Worlds side by side in each process."""


def practice_specs(
    config: PracticeConfig, suite: str, tasks: Sequence[str], iteration: int, round_: int = 0, repeats: int = 1
) -> list[EpisodeSpec]:
    """First states of one round of an iteration, tasks taking turns.

    Args:
        config: what to practise.
        suite: of the world.
        tasks: to practise.
        iteration: counted from 0.
        round_: counted from 0, below ROUNDS.
        repeats: how often each is to be run, so that each task has episodes_per_task episodes.

    Raises:
        ValueError: the repeats don't divide the episodes, or the seeds reach evaluation's.
    """
    count, rest = divmod(config.episodes_per_task, repeats)
    if rest or not count:
        raise ValueError(f"practice.episodes_per_task is {config.episodes_per_task}, expected a multiple of {repeats}")
    assert round_ < ROUNDS, f"round {round_} of {ROUNDS}"
    first = config.first_seed + (iteration * ROUNDS + round_) * count
    check_training_seed(first)
    check_training_seed(first + count - 1)
    return [
        EpisodeSpec(suite=suite, task=task, seed=seed, variation=config.variation)
        for seed in range(first, first + count)
        for task in tasks
    ]


class Run(Protocol):
    """Runs every spec once: `Workers.collect`."""

    def __call__(
        self, specs: Sequence[EpisodeSpec], *, execute_steps: int | None = None, all_frames: bool = False
    ) -> Iterator[Trajectory]:
        """Yield the trajectories in any order."""
        ...


Specs = Callable[[int, int], list[EpisodeSpec]]
"""(round, repeats) -> `practice_specs` of an iteration."""
