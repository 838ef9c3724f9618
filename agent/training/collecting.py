"""When an iteration's episodes are collected: alternating with learning, or overlapped with it.

    synchronous    publish W_i      collect E_i      learn from E_i gives W_i+1                          age 0
    overlapped     publish W_i      learn from E_i, meanwhile collect E_i+1 with W_i                     age 1
                   (E_0 and E_1 are both of W_0)

Overlapped: learning waits until its episodes are complete; the collecting thread unblocks it. Only that thread uses the
worker processes, also to close them, except for `publish`, which is called while it is idle.

E_i+1 is determined by W_i and i, so a checkpoint with W_i and W_i+1 is enough to continue identically after a kill: the
episodes in progress are collected again. (With workers, as in improve.py, up to the last bits.)

Off-policy age: ppo and grpo take their ratios to the policy that acted, whose log-probabilities are recorded, so with
overlap the first ratios differ from 1; rft and dagger clone, so age does not matter.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Protocol

from torch import Tensor

from envs.types import EpisodeSpec
from rollout.types import RunEpisodes, Trajectory
from rollout.workers.workers import Workers

CollectWith = Callable[[RunEpisodes, int], list[Trajectory]]
"""(function that runs specs, iteration) -> that iteration's episodes."""


class Collector(Protocol):
    """Yields the episodes of successive iterations."""

    seconds: float
    """Wall-clock time of collecting the latest episodes."""
    acted: Mapping[str, Tensor] | None
    """The weights that collect the next iteration's episodes, where these are not the learner's; part of a
    checkpoint."""

    def episodes(self, iteration: int, weights: Mapping[str, Tensor]) -> list[Trajectory]:
        """Those of an iteration, in the order of their specs; `weights` are the learner's at its start."""
        ...

    def close(self) -> None:
        """Abandon episodes in progress."""
        ...


class SyncCollector:
    """Collects when called, with the learner's weights."""

    acted = None

    def __init__(self, actors: Workers, collect: CollectWith) -> None:
        self.seconds = 0.0
        self._actors = actors
        self._collect = collect

    def episodes(self, iteration: int, weights: Mapping[str, Tensor]) -> list[Trajectory]:
        began_s = time.perf_counter()
        self._actors.publish(iteration, weights)
        found = self._collect(self._actors.collect, iteration)
        self.seconds = time.perf_counter() - began_s
        return found

    def close(self) -> None:
        """No episodes are in progress."""


class OverlappedCollector:
    """Returns episodes collected meanwhile, and starts the next iteration's with the weights it gets."""

    def __init__(
        self, actors: Workers, collect: CollectWith, *, iterations: int, acted: Mapping[str, Tensor] | None
    ) -> None:
        """
        Args:
            actors: worker processes that collect; closed with this.
            iterations: of the run; nothing is collected beyond.
            acted: of the checkpoint that the run resumes from.
        """
        self.seconds = 0.0
        self.acted = acted
        self._actors = actors
        self._collect = collect
        self._iterations = iterations
        self._next: Future[tuple[list[Trajectory], float]] | None = None
        self._closing = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="collecting")

    def episodes(self, iteration: int, weights: Mapping[str, Tensor]) -> list[Trajectory]:
        # The learner changes its tensors in place while these act.
        weights = {name: tensor.clone() for name, tensor in weights.items()}
        if self._next is None:
            self._actors.publish(max(iteration - 1, 0), self.acted or weights)
            self._next = self._thread.submit(self._timed, iteration)
        found, self.seconds = self._next.result()
        if iteration:
            self._actors.publish(iteration, weights)
        self.acted = weights
        if iteration + 1 < self._iterations:
            self._next = self._thread.submit(self._timed, iteration + 1)
        return found

    def close(self) -> None:
        self._closing = True
        self._thread.submit(self._actors.close).result()
        self._thread.shutdown()

    def _timed(self, iteration: int) -> tuple[list[Trajectory], float]:
        began_s = time.perf_counter()
        found = self._collect(self._run, iteration)
        return found, time.perf_counter() - began_s

    def _run(
        self, specs: Sequence[EpisodeSpec], *, n_action_steps: int | None = None, all_frames: bool = False
    ) -> Iterator[Trajectory]:
        for trajectory in self._actors.collect(specs, n_action_steps=n_action_steps, all_frames=all_frames):
            if self._closing:
                raise CancelledError
            yield trajectory
