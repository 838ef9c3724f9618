"""Blind controls: a policy's success with wrong instructions, or with black frames.

A success rate shows that a policy uses its instruction or its cameras only if it is lower without. Both controls wrap a
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
    """A policy whose frames are black: every pixel is 0."""

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
    """A policy that gets, in each episode, the instruction of an episode of another task.

    The other episode is sampled from the episode's spec, so all policies that are evaluated on the same episodes get
    the same instructions: mostly of the episode with the same seed, of a task sampled such that with T tasks, T - 1
    successive seeds give every task the instruction of every other once. Where all tasks have the same seeds, the
    policy thus gets exactly the instructions of the evaluation, equally often.
    """

    def __init__(self, policy: Policy, instructions: Mapping[EpisodeSpec, str]) -> None:
        """Sample the instruction of each episode.

        Args:
            instructions: of every episode that will run, e.g. `evaluation.instructions` of the same specs.

        Raises:
            UserError: an episode has no wrong instruction: all episodes are of one task, or the other tasks have the
                same instruction.
        """
        self.version = policy.version
        self._policy = policy
        self._shuffled = {spec.policy_seed: instructions[other] for spec, other in _shuffled(instructions).items()}
        self._instructions: dict[int, str] = {}

    def begin(self, worlds: Sequence[int], instructions: tuple[str, ...], seeds: tuple[int, ...]) -> None:
        for n, instruction, seed in zip(worlds, instructions, seeds, strict=True):
            if seed not in self._shuffled:
                raise UserError(f"no instruction was given to swap for {instruction!r} of the episode of seed {seed}")
            self._instructions[n] = self._shuffled[seed]
        self._policy.begin(worlds, tuple(self._instructions[n] for n in worlds), seeds)
        self.version = self._policy.version

    def act(self, worlds: Sequence[int], observation: Observation) -> ActionChunk:
        instruction = tuple(self._instructions[n] for n in worlds)
        return self._policy.act(worlds, Observation(**(observation | {"instruction": instruction})))


def _shuffled(instructions: Mapping[EpisodeSpec, str]) -> dict[EpisodeSpec, EpisodeSpec]:
    """For each spec, one of another task with another instruction."""
    of_task: dict[str, list[EpisodeSpec]] = defaultdict(list)
    for spec in sorted(instructions):
        of_task[spec.task].append(spec)
    if len(of_task) < 2:
        raise UserError(
            f"shuffled instructions need two tasks, and all {len(instructions)} episodes are of {', '.join(of_task)}; "
            "evaluate at least two tasks, or leave this control out"
        )
    chosen = {}
    for spec in instructions:
        candidates = (
            other for task in _other_tasks(spec, sorted(of_task)) for other in _most_similar_first(spec, of_task[task])
        )
        wrong = (other for other in candidates if _plain(instructions[other]) != _plain(instructions[spec]))
        if (other := next(wrong, None)) is None:
            raise UserError(f"all other tasks have the instruction of {spec.id} too, {instructions[spec]!r}")
        chosen[spec] = other
    return chosen


def _other_tasks(spec: EpisodeSpec, tasks: Sequence[str]) -> list[str]:
    """All tasks but the spec's own, the one to take the instruction of first.

    For every T - 1 successive seeds the tasks are permuted into a ring. Each of these seeds takes the instruction from
    another offset in the ring, never 0, so no task gets its own.
    """
    block, place = divmod(spec.seed, len(tasks) - 1)
    shared = (spec.suite, spec.variation, spec.repeat, block)
    ring = np.random.default_rng(seed_of("ring", *shared)).permutation(list(tasks)).tolist()
    steps = 1 + np.random.default_rng(seed_of("steps", *shared)).permutation(len(tasks) - 1)
    first, own = int(steps[place]), ring.index(spec.task)
    return [ring[(own + first + i) % len(ring)] for i in range(len(ring)) if (first + i) % len(ring)]


def _most_similar_first(spec: EpisodeSpec, others: Sequence[EpisodeSpec]) -> list[EpisodeSpec]:
    """Episodes of the same variation, seed and repeat first, then of the same variation; otherwise in random order."""
    order = np.random.default_rng(seed_of("episodes", spec.policy_seed)).permutation(len(others))
    same = (spec.variation, spec.seed, spec.repeat)
    return sorted(
        (others[i] for i in order),
        key=lambda other: ((other.variation, other.seed, other.repeat) != same, other.variation != spec.variation),
    )


def _plain(sentence: str) -> str:
    """Without case and extra spaces."""
    return " ".join(sentence.casefold().split())
