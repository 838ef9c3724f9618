"""Blind controls: what a policy scores when it cannot read, or cannot see.

A success rate says nothing about reading or seeing as long as a policy scores as well without. Both controls wrap a
policy and run the same specs as the evaluation they belong to.

Shape letters: N worlds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from envs.types import EpisodeSpec, Observation
from vla_model.types import ActionChunk, Policy


class BlackFrames:
    """A policy whose cameras show nothing: every pixel is 0."""

    def __init__(self, policy: Policy) -> None:
        self.version = policy.version
        self._policy = policy

    def begin(self, worlds: NDArray[np.int64], instructions: tuple[str, ...], seeds: tuple[int, ...]) -> None:
        self._policy.begin(worlds, instructions, seeds)
        self.version = self._policy.version

    def act(self, observation: Observation) -> ActionChunk:
        black = {camera: frames * 0 for camera, frames in observation["frames"].items()}
        return self._policy.act(Observation(**(observation | {"frames": black})))


class ShuffledInstructions:
    """A policy that is told, in each episode, the instruction of an episode of another task.

    The episodes' instructions are permuted, so the policy reads exactly the sentences of the evaluation, each as often.
    """

    def __init__(self, policy: Policy, instructions: Mapping[EpisodeSpec, str]) -> None:
        """Permute the instructions of the episodes that will run.

        Args:
            policy: whom to tell the wrong thing.
            instructions: of every episode that will run, e.g. `evaluation.instructions` of the same specs.

        Raises:
            ValueError: one task has more than half of the episodes, so not every episode can get another task's.
        """
        self.version = policy.version
        self._policy = policy
        self._shuffled = {
            (instructions[spec], spec.seed): instructions[other] for spec, other in _derangement(instructions).items()
        }
        self._told: dict[int, str] = {}

    def begin(self, worlds: NDArray[np.int64], instructions: tuple[str, ...], seeds: tuple[int, ...]) -> None:
        for n, key in zip(worlds.tolist(), zip(instructions, seeds, strict=True), strict=True):
            if key not in self._shuffled:
                raise ValueError(f"no instruction was given to swap for {key[0]!r} of the episode with seed {key[1]}")
            self._told[n] = self._shuffled[key]
        self._policy.begin(worlds, tuple(self._told[n] for n in worlds.tolist()), seeds)
        self.version = self._policy.version

    def act(self, observation: Observation) -> ActionChunk:
        told = tuple(self._told.get(n, text) for n, text in enumerate(observation["instruction"]))
        return self._policy.act(Observation(**(observation | {"instruction": told})))


def _derangement(specs: Mapping[EpisodeSpec, str]) -> dict[EpisodeSpec, EpisodeSpec]:
    """A permutation that gives every spec one of another task: sorted by task, then rotated by the largest task."""
    ordered = sorted(specs)
    largest = max(Counter(spec.task for spec in ordered).values())
    if 2 * largest > len(ordered):
        raise ValueError(
            f"one task has {largest} of {len(ordered)} episodes; to give each the instruction of another task, "
            "evaluate at least two tasks and none with more than half of the episodes"
        )
    return dict(zip(ordered, ordered[largest:] + ordered[:largest], strict=True))
