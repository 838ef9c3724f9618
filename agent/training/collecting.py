"""Who collects an iteration's episodes, and when: in turn with learning, or ahead, while it goes on.

    in turn    publish W_i      collect E_i      learn from E_i gives W_i+1                          age 0
    ahead      publish W_i      learn from E_i, meanwhile collect E_i+1 with W_i                     age 1
               (E_0 and E_1 are both of W_0)

Who waits, ahead: learning, for its episodes to be complete. Who unblocks it: the thread that collects. That thread
alone touches the processes that collect, also to close them, but for `publish`, which happens while it is idle.

What E_i+1 will be is decided by W_i and i, so a checkpoint that holds W_i beside W_i+1 is enough to go on to the same
numbers after a kill: the episodes that were under way are collected again. (With workers, as in improve.py, but
for the last bits.)

What an algorithm makes of the age is its own business: ppo and grpo take their ratios to the policy that acted, whose
log-probabilities stand in the episodes, so with overlap they begin away from 1; rft and dagger clone in any case.
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
"""(runs specs, iteration) -> that iteration's episodes."""


class Collecting(Protocol):
    """The episodes of one iteration after the other."""

    seconds: float
    """That collecting the latest episodes took, whatever else went on."""
    acted: Mapping[str, Tensor] | None
    """The weights that collect the next iteration's episodes where these are not the learner's: what a checkpoint must
    hold besides."""

    def episodes(self, iteration: int, weights: Mapping[str, Tensor]) -> list[Trajectory]:
        """Those to learn from in that iteration, in the order of their specs; the learner begins it with `weights`."""
        ...

    def close(self) -> None:
        """Leave what is under way."""
        ...


class InTurn:
    """Collects when it is asked, with the learner's weights."""

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
        """Nothing is under way."""


class Ahead:
    """Has collected when it is asked, and begins the next iteration's episodes with the weights it is given."""

    def __init__(
        self, actors: Workers, collect: CollectWith, *, iterations: int, acted: Mapping[str, Tensor] | None
    ) -> None:
        """
        Args:
            actors: processes that collect; they are closed with this.
            collect: what an iteration's episodes are.
            iterations: of the run; nothing is collected beyond.
            acted: of the checkpoint that the run goes on from.
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
        # The learner goes on with its tensors while these act.
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
