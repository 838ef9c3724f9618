"""Work queue of one collect: which specs go to which worker, and when to stop replacing workers.

A worker begins its specs in the order assigned, so when it dies, only its first unfinished specs, at most one per
world, can have been running. These suspects are run again one at a time, so that another death has a known cause. A
spec with which three workers died alone is set aside. Specs that had not begun return to the queue.
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
"""Number of workers that die running a spec alone before it is set aside."""
_CALLS_AHEAD = 2


class WorkerQueue:
    """The specs of one collect that are not assigned to a worker."""

    def __init__(self, call: Call) -> None:
        self._todo = deque(call.specs)
        self._suspects: deque[EpisodeSpec] = deque()
        """Run alone, after all others."""
        self._call = call
        self._deaths_alone: Counter[EpisodeSpec] = Counter()

    def __len__(self) -> int:
        return len(self._todo) + len(self._suspects)

    def dispatch(self, remotes: Sequence[Remote]) -> None:
        """Assign specs to every worker that is ready."""
        for remote in remotes:
            if remote.info is not None:
                self._assign(remote, remotes)

    def requeue(self, unfinished: Sequence[EpisodeSpec], running: Sequence[EpisodeSpec]) -> EpisodeSpec | None:
        """Queue a dead worker's specs again; returns a spec to set aside instead, if there is one.

        Args:
            unfinished: all its unfinished specs, in the order assigned.
            running: the first of them, which may have caused the death; empty if something else caused it.
        """
        self._todo.extendleft(reversed(unfinished[len(running) :]))
        if len(unfinished) == len(running) == 1:
            (alone,) = unfinished
            self._deaths_alone[alone] += 1
            if self._deaths_alone[alone] == FATAL_DEATHS:
                return alone
        self._suspects.extend(running)
        return None

    def _assign(self, remote: Remote, remotes: Sequence[Remote]) -> None:
        """Assign specs to a worker; if none are left, let it finish.

        A worker that is finishing gets nothing more until it is done: it may run a suspect, which must run alone, even
        if another worker's death refills the queue meanwhile.
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
        """One spec per world, so that they act in one batch; an equal share if fewer are left.

        Specs that an idle or starting worker could begin at once are not assigned ahead to a busy one.
        """
        waiting = sum(not other.calls for other in remotes)
        if not remote.calls:
            return min(remote.num_worlds, math.ceil(len(self._todo) / waiting))
        spare = max(0, len(self._todo) - waiting * remote.num_worlds)
        takers = sum(len(other.calls) < _CALLS_AHEAD for other in remotes)
        return min(remote.num_worlds, math.ceil(spare / takers))


class RestartLimits:
    """Limits on how many workers are replaced without progress."""

    def __init__(self, num_workers: int) -> None:
        self._deaths_left = FATAL_DEATHS * (num_workers + 1)
        self._starts_left = self._servers_left = FATAL_DEATHS
        self._any_trajectory = False

    def note_progress(self, trajectory: Trajectory | None) -> None:
        """A worker became ready or returned a trajectory: reset the limits."""
        self._starts_left = FATAL_DEATHS
        if trajectory is not None:
            self._any_trajectory, self._servers_left = True, FATAL_DEATHS

    def note_death(self, remote: Remote, error: Exception) -> None:
        """Count a worker's death.

        Raises:
            RuntimeError: too many deaths without progress.
        """
        started = remote.info is not None
        if not started:
            self._starts_left -= 1
        elif explain(error)[0] == "inference":
            self._servers_left -= 1
        elif not self._any_trajectory:
            self._deaths_left -= 1
        if self._starts_left == 0 or failed_to_start(error):
            raise RuntimeError("a worker could not create its world or its policy") from error
        if self._servers_left == 0:
            raise RuntimeError(f"the inference process died {FATAL_DEATHS} times in a row") from error
        if self._deaths_left == 0:
            raise RuntimeError("workers fail with every episode") from error
