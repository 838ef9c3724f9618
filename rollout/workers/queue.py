"""Work queue of one collect: which specs go to which worker, and when to stop replacing workers.

A worker begins its specs in the order assigned, so when it dies, only its first unfinished specs, at most one per
world, can have been running. These suspects are run again one at a time, so that another death has a known cause. A
spec with which three workers died alone is set aside. Specs that had not begun return to the queue.

Specs that follow each other in the world's order may share what is slow to change (`World.in_order`), so every worker
takes its own part of the queue from the front, and when that is empty the later half of the longest other part.
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
        self._waiting = _Parts(call.specs)
        self._suspects: deque[EpisodeSpec] = deque()
        """Run alone, after all others."""
        self._call = call
        self._deaths_alone: Counter[EpisodeSpec] = Counter()

    def __len__(self) -> int:
        return len(self._waiting) + len(self._suspects)

    def dispatch(self, remotes: Sequence[Remote]) -> None:
        """Assign specs to every worker that is ready."""
        self._waiting.share([remote.name for remote in remotes])
        for remote in remotes:
            if remote.info is not None:
                self._assign(remote, remotes)

    def requeue(self, unfinished: Sequence[EpisodeSpec], running: Sequence[EpisodeSpec]) -> EpisodeSpec | None:
        """Queue a dead worker's specs again; returns a spec to set aside instead, if there is one.

        Args:
            unfinished: all its unfinished specs, in the order assigned.
            running: the first of them, which may have caused the death; empty if something else caused it.
        """
        self._waiting.put_back(unfinished[len(running) :])
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
            block = self._waiting.take(remote.name, size)
            remote.submit(replace(self._call, specs=block, more_follow=len(self._waiting) > 0))
        if remote.expects_more and not self._waiting:
            remote.submit(replace(self._call, specs=[]))
        if not remote.calls and self._suspects:
            remote.submit(replace(self._call, specs=[self._suspects.popleft()]))

    def _block_size(self, remote: Remote, remotes: Sequence[Remote]) -> int:
        """One spec per world, so that they act in one batch; an equal share if fewer are left.

        Specs that an idle or starting worker could begin at once are not assigned ahead to a busy one.
        """
        waiting = sum(not other.calls for other in remotes)
        if not remote.calls:
            return min(remote.num_worlds, math.ceil(len(self._waiting) / waiting))
        spare = max(0, len(self._waiting) - waiting * remote.num_worlds)
        takers = sum(len(other.calls) < _CALLS_AHEAD for other in remotes)
        return min(remote.num_worlds, math.ceil(spare / takers))


class _Parts:
    """Specs that wait, in parts of workers."""

    def __init__(self, specs: Sequence[EpisodeSpec]) -> None:
        self._of_none = deque(specs)
        """Not shared yet, or put back."""
        self._parts: dict[str, deque[EpisodeSpec]] = {}

    def __len__(self) -> int:
        return len(self._of_none) + sum(map(len, self._parts.values()))

    def share(self, names: Sequence[str]) -> None:
        """At the first call, give each worker of these names an equal part of neighbours."""
        if self._parts or not names:
            return
        specs = list(self._of_none)
        self._of_none.clear()
        bounds = [len(specs) * k // len(names) for k in range(len(names) + 1)]
        self._parts = {name: deque(specs[bounds[k] : bounds[k + 1]]) for k, name in enumerate(names)}

    def take(self, name: str, count: int) -> list[EpisodeSpec]:
        """The next specs for the worker of that name; at least `count` wait."""
        part = self._parts.setdefault(name, deque())
        taken: list[EpisodeSpec] = []
        while len(taken) < count:
            if not part:
                part.extend(self._more())
            taken.append(part.popleft())
        return taken

    def put_back(self, specs: Sequence[EpisodeSpec]) -> None:
        """Specs for the first worker whose part is empty."""
        self._of_none.extendleft(reversed(specs))

    def _more(self) -> list[EpisodeSpec]:
        """What was put back, or the later half of the longest part."""
        if self._of_none:
            found = list(self._of_none)
            self._of_none.clear()
            return found
        longest = max(self._parts.values(), key=len)
        return [longest.pop() for _ in range(math.ceil(len(longest) / 2))][::-1]


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
