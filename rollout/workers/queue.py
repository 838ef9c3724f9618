"""Which specs to tell which worker, and when to stop replacing workers: the bookkeeping of one collect.

A worker begins what it was told in that order, so when it dies, only the first of its unfinished specs, as many as it
has worlds, can have been running. Those are suspects: each runs alone from then on, where a death can only be its own.
A spec that three workers died with alone is set aside. What had not begun is told again like new.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import replace

from envs.types import EpisodeSpec
from rollout.types import Trajectory
from rollout.workers.handle import Remote, explain, failed_to_start
from rollout.workers.process import Call

FATAL_DEATHS = 3
"""Workers that must die with a spec alone until it is set aside."""
_CALLS_AHEAD = 2


class WorkerQueue:
    """The specs of one collect that no worker has in hand."""

    def __init__(self, call: Call) -> None:
        self._todo = deque(call.specs)
        self._suspects: deque[EpisodeSpec] = deque()
        """Run alone, after everything else."""
        self._call = call
        self._deaths_alone: Counter[EpisodeSpec] = Counter()

    def __len__(self) -> int:
        return len(self._todo) + len(self._suspects)

    def dispatch(self, remotes: Sequence[Remote]) -> None:
        """Keep every worker that is ready supplied."""
        for remote in remotes:
            if remote.info is not None:
                self._supply(remote, remotes)

    def take_back(self, unfinished: Sequence[EpisodeSpec], running: Sequence[EpisodeSpec]) -> EpisodeSpec | None:
        """Queue again what a dead worker had in hand; returns a spec that is to be set aside instead.

        Args:
            unfinished: all of it, in the order in which it was told.
            running: the first of it, which may have begun and is to blame; nothing where something else is.
        """
        self._todo.extendleft(reversed(unfinished[len(running) :]))
        if len(unfinished) == len(running) == 1:
            (alone,) = unfinished
            self._deaths_alone[alone] += 1
            if self._deaths_alone[alone] == FATAL_DEATHS:
                return alone
        self._suspects.extend(running)
        return None

    def _supply(self, remote: Remote, remotes: Sequence[Remote]) -> None:
        """Keep a worker supplied; where nothing is left, tell it to finish what it has.

        One that was told to finish gets nothing more before it has: it may run a suspect, which must be alone, and what
        another worker's death brings back to the queue meanwhile would be taken for its company.
        """
        if remote.calls and not remote.expects_more:
            return
        while len(remote.calls) < _CALLS_AHEAD and (size := self._block_size(remote, remotes)) > 0:
            block = [self._todo.popleft() for _ in range(size)]
            remote.submit(replace(self._call, specs=block, more_follow=bool(self._todo)))
        if remote.expects_more and not self._todo:
            remote.submit(replace(self._call, specs=[]))
        if not remote.calls and self._suspects:
            remote.submit(replace(self._call, specs=[self._suspects.popleft()]))

    def _block_size(self, remote: Remote, remotes: Sequence[Remote]) -> int:
        """A worker's worlds, so that they begin together and are decided for together; its share where less is left.

        Nothing is told ahead that a worker that waits, or still starts, could begin at once.
        """
        waiting = sum(not other.calls for other in remotes)
        if not remote.calls:
            return min(remote.num_worlds, math.ceil(len(self._todo) / waiting))
        spare = max(0, len(self._todo) - waiting * remote.num_worlds)
        takers = sum(len(other.calls) < _CALLS_AHEAD for other in remotes)
        return min(remote.num_worlds, math.ceil(spare / takers))


class RestartLimits:
    """When replacing workers is in vain."""

    def __init__(self, num_workers: int) -> None:
        self._deaths_left = FATAL_DEATHS * (num_workers + 1)
        self._starts_left = self._servers_left = FATAL_DEATHS
        self._any_trajectory = False

    def note_progress(self, trajectory: Trajectory | None) -> None:
        """A worker is alive."""
        self._starts_left = FATAL_DEATHS
        if trajectory is not None:
            self._any_trajectory, self._servers_left = True, FATAL_DEATHS

    def note_death(self, remote: Remote, error: Exception) -> None:
        """A worker is not.

        Raises:
            RuntimeError: that happened too often and nothing else did.
        """
        started = remote.info is not None
        if not started:
            self._starts_left -= 1
        elif explain(error)[0] == "inference":
            self._servers_left -= 1
        elif not self._any_trajectory:
            self._deaths_left -= 1
        if self._starts_left == 0 or failed_to_start(error):
            raise RuntimeError("a worker could not make its world or its policy") from error
        if self._servers_left == 0:
            raise RuntimeError("the inference process dies again and again") from error
        if self._deaths_left == 0:
            raise RuntimeError("workers fail with every episode") from error
