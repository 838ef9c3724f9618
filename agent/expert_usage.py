"""Which experts a policy used, task by task, noted while it acts.

Shape letters: N worlds, E experts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from envs.types import EpisodeSpec, Observation
from rollout.types import Trajectory
from vla_model.types import ActionChunk, Policy


class ExpertUsage:
    """A policy that also sums up its `expert_usage` ([N, layers, E] of its latest act), where it has one.

    `collect` draws a spec right before the `begin` of its episode, in the same order: `watch` listens there, which
    tells this class what `begin` does not say.
    """

    def __init__(self, policy: Policy) -> None:
        self.version = policy.version
        self._policy = policy
        self._drawn: list[EpisodeSpec] = []
        self._running: dict[int, EpisodeSpec] = {}
        self._total: dict[str, NDArray[np.float64]] = {}  # {task: [layers, E]}
        self._decisions: Counter[str] = Counter()

    def watch(self, specs: Iterable[EpisodeSpec]) -> Iterator[EpisodeSpec]:
        for spec in specs:
            self._drawn.append(spec)
            yield spec

    def begin(self, worlds: NDArray[np.int64], instructions: tuple[str, ...], seeds: tuple[int, ...]) -> None:
        assert tuple(spec.seed for spec in self._drawn) == seeds, f"episodes {self._drawn} begin with seeds {seeds}"
        self._running.update(zip(worlds.tolist(), self._drawn, strict=True))
        self._drawn.clear()
        self._policy.begin(worlds, instructions, seeds)

    def act(self, observation: Observation) -> ActionChunk:
        chunk = self._policy.act(observation)
        usage = getattr(self._policy, "expert_usage", None)  # [N, layers, E]
        if usage is not None:
            for n, spec in self._running.items():
                self._total[spec.task] = self._total.get(spec.task, 0.0) + np.asarray(usage[n], np.float64)
                self._decisions[spec.task] += 1
        return chunk

    def finish(self, trajectory: Trajectory) -> None:
        """Its world is idle from now on, and what the policy does there counts no more."""
        self._running = {n: spec for n, spec in self._running.items() if spec != trajectory.spec}

    def mean_per_task(self) -> dict[str, NDArray[np.float64]]:
        return {task: self._total[task] / self._decisions[task] for task in sorted(self._total)}
