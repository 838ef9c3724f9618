"""Blind controls: what a policy scores when it cannot read, or cannot see.

A success rate says nothing about reading or seeing as long as a policy scores as well without. Both controls wrap a
policy and run the same specs as the evaluation they belong to.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from envs.errors import UserError
from envs.seeds import seed_of
from envs.types import EpisodeSpec, Observation
from vla_model.types import ActionChunk, Policy


class BlackFrames:
    """A policy whose cameras show nothing: every pixel is 0."""

    def __init__(self, policy: Policy) -> None:
        self.version = policy.version
        self._policy = policy

    def begin(self, worlds: Sequence[int], instructions: tuple[str, ...], seeds: tuple[int, ...]) -> None:
        self._policy.begin(worlds, instructions, seeds)
        self.version = self._policy.version

    def act(self, worlds: Sequence[int], observation: Observation) -> ActionChunk:
        black = {camera: frames * 0 for camera, frames in observation["frames"].items()}
        return self._policy.act(worlds, Observation(**(observation | {"frames": black})))


class ShuffledInstructions:
    """A policy that is told, in each episode, what an episode of another task is told.

    Which one is drawn by the episode's spec, so every policy that is measured on the same episodes hears the same:
    mostly the sentence of the episode with the same seed, of a task that is drawn so that with T tasks, T - 1
    successive seeds give every task the sentence of every other once. Where all tasks have the same seeds, the policy
    thus reads exactly the sentences of the evaluation, each as often.
    """

    def __init__(self, policy: Policy, instructions: Mapping[EpisodeSpec, str]) -> None:
        """Draw what each of the episodes that will run is told.

        Args:
            policy: whom to tell the wrong thing.
            instructions: of every episode that will run, e.g. `evaluation.instructions` of the same specs.

        Raises:
            UserError: an episode for which there is nothing wrong to say: all are of one task, or the other tasks'
                sentences are its own.
        """
        self.version = policy.version
        self._policy = policy
        self._shuffled = {spec.policy_seed: instructions[other] for spec, other in _told_apart(instructions).items()}
        self._told: dict[int, str] = {}

    def begin(self, worlds: Sequence[int], instructions: tuple[str, ...], seeds: tuple[int, ...]) -> None:
        for n, instruction, seed in zip(worlds, instructions, seeds, strict=True):
            if seed not in self._shuffled:
                raise UserError(f"no instruction was given to swap for {instruction!r} of the episode of seed {seed}")
            self._told[n] = self._shuffled[seed]
        self._policy.begin(worlds, tuple(self._told[n] for n in worlds), seeds)
        self.version = self._policy.version

    def act(self, worlds: Sequence[int], observation: Observation) -> ActionChunk:
        told = tuple(self._told[n] for n in worlds)
        return self._policy.act(worlds, Observation(**(observation | {"instruction": told})))


def _told_apart(instructions: Mapping[EpisodeSpec, str]) -> dict[EpisodeSpec, EpisodeSpec]:
    """For each spec, one of another task that is told something else."""
    of_task: dict[str, list[EpisodeSpec]] = defaultdict(list)
    for spec in sorted(instructions):
        of_task[spec.task].append(spec)
    if len(of_task) < 2:
        raise UserError(
            f"an episode is told what another task's is, and all {len(instructions)} are of {', '.join(of_task)}; "
            "evaluate at least two tasks, or leave this control out"
        )
    chosen = {}
    for spec in instructions:
        candidates = (
            other for task in _other_tasks(spec, sorted(of_task)) for other in _by_kinship(spec, of_task[task])
        )
        wrong = (other for other in candidates if _plain(instructions[other]) != _plain(instructions[spec]))
        if (other := next(wrong, None)) is None:
            raise UserError(f"every other task's episodes are told {instructions[spec]!r} too, as {spec.id} is")
        chosen[spec] = other
    return chosen


def _other_tasks(spec: EpisodeSpec, tasks: Sequence[str]) -> list[str]:
    """All tasks but the spec's own, the one to take a sentence from first.

    The tasks stand in a ring, in an order that is drawn anew for every T - 1 successive seeds. With each of these the
    sentence comes from another place in the ring, so none gives a task its own.
    """
    block, place = divmod(spec.seed, len(tasks) - 1)
    shared = (spec.suite, spec.variation, spec.repeat, block)
    ring = np.random.default_rng(seed_of("ring", *shared)).permutation(list(tasks)).tolist()
    steps = 1 + np.random.default_rng(seed_of("steps", *shared)).permutation(len(tasks) - 1)
    first, own = int(steps[place]), ring.index(spec.task)
    return [ring[(own + first + i) % len(ring)] for i in range(len(ring)) if (first + i) % len(ring)]


def _by_kinship(spec: EpisodeSpec, others: Sequence[EpisodeSpec]) -> list[EpisodeSpec]:
    """Those that begin with the same seed first, then those of the same variation; the rest in an order drawn."""
    order = np.random.default_rng(seed_of("episodes", spec.policy_seed)).permutation(len(others))
    kin = (spec.variation, spec.seed, spec.repeat)
    return sorted(
        (others[i] for i in order),
        key=lambda other: ((other.variation, other.seed, other.repeat) != kin, other.variation != spec.variation),
    )


def _plain(sentence: str) -> str:
    """Without what does not change what is asked for."""
    return " ".join(sentence.casefold().split())
