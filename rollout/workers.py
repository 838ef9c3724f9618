"""Ray processes around `collect`, for worlds that outgrow one core; the same trajectories with any number of them.

    driver                                              worker (one process: its own worlds, its own policy)
    run(block of specs, more follow) ------------->     begins them as its worlds fall free
    run(next block), queued behind the first            yields each trajectory as its episode ends
    <------------------------------------ trajectory    returns when it wants the next block
    yields it to the caller                             (its other worlds' episodes go on within the next run)

Who waits: the driver, for the next trajectory of any worker. Who unblocks it: a worker that yields, returns, raises or
dies. A worker that raises or dies is replaced, and what it was told and had not returned is told again, so every spec
comes back exactly once. A spec that was in two workers when they died runs alone from then on; if a third worker dies
with it alone, the spec is set aside and reported. Ray is imported when the first worker starts.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, Self

from envs.types import EpisodeSpec
from envs.world import World
from rollout.types import Trajectory
from rollout.weights import Published, check_order
from rollout.worker_process import Call, Collector, Remote, start_ray
from vla_model.types import Policy

_CALLS_AHEAD = 2
_FATAL_DEATHS = 3


class Workers:
    """Processes that collect. Use as a context manager, or call `close`."""

    def __init__(
        self, make_world: Callable[[], World], make_policy: Callable[[World], Policy], *, num_workers: int
    ) -> None:
        """Nothing starts before the first use.

        Args:
            make_world: called in each worker's process.
            make_policy: called there with that world.
            num_workers: 0 collects in this process, without Ray.
        """
        if num_workers < 0:
            raise ValueError(f"num_workers must be 0 or more, got {num_workers}")
        self.set_aside: dict[EpisodeSpec, str] = {}
        """Specs that were given up because three workers died with them, and what the last one died of."""
        self.num_deaths = 0
        """Workers that raised or died; all were replaced."""
        self._make = (make_world, make_policy)
        self._num_workers = num_workers
        self._local: Collector | None = None
        self._remotes: list[Remote] = []
        self._latest: Published | None = None

    def publish(self, version: int, state_dict: Mapping[str, Any]) -> None:
        """Offer new weights: the next collect acts with them. The policies must be rollout.weights.UpdatablePolicy.

        Raises:
            ValueError: the version doesn't rise.
        """
        check_order(self._latest, version)
        if self._num_workers == 0:
            self._latest = Published(version, lambda: state_dict)
            return
        self._start()
        import ray

        self._latest = Published(version, partial(ray.get, ray.put(dict(state_dict))))

    def collect(
        self, specs: Sequence[EpisodeSpec], *, execute_steps: int | None = None, all_frames: bool = False
    ) -> Iterator[Trajectory]:
        """As rollout.collect.collect; specs that no worker survives are left out and stand in `set_aside`.

        Raises:
            ValueError: as collect does, where it runs in this process.
            RuntimeError: a worker could not make its world or policy, or three specs had to be set aside before any
                trajectory came; the cause is the worker's own error.
        """
        call = Call(list(specs), False, self._latest, execute_steps, all_frames)
        if self._num_workers == 0:
            self._local = self._local or Collector(*self._make)
            yield from self._local.collect(call.specs, call)
            return
        self._start()
        try:
            yield from self._dispatch(call)
        finally:
            # A caller that stops early leaves episodes running; a new worker is simpler than one that must forget them.
            for remote in self._remotes:
                if remote.calls:
                    remote.restart()

    def close(self) -> None:
        """End the workers; Ray itself goes on until this process ends."""
        if self._local is not None:
            self._local.close()
            self._local = None
        for remote in self._remotes:
            remote.kill()
        self._remotes.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _start(self) -> None:
        if not self._remotes:
            start_ray()
            self._remotes = [Remote(*self._make) for _ in range(self._num_workers)]

    def _dispatch(self, call: Call) -> Iterator[Trajectory]:
        """Tell workers what to do and yield what comes back, until every spec came back or was set aside."""
        import ray

        queue = _Queue(call, self._num_workers)
        while queue.todo or queue.suspects or any(remote.calls for remote in self._remotes):
            for remote in self._remotes:
                queue.tell(remote)
            (ready,), _ = ray.wait([remote.calls[0] for remote in self._remotes if remote.calls], num_returns=1)
            remote = next(remote for remote in self._remotes if remote.calls and remote.calls[0] is ready)
            try:
                trajectory = ray.get(next(ready))
            except StopIteration:
                remote.calls.popleft()
            except ray.exceptions.RayError as error:
                self.num_deaths += 1
                self.set_aside |= queue.take_back(remote, error)
                remote.restart()
            else:
                remote.told.remove(trajectory.spec)
                queue.num_returned += 1
                yield trajectory


class _Queue:
    """The specs of one collect that have not been told, and how many workers died with each that has."""

    def __init__(self, call: Call, num_workers: int) -> None:
        self.todo = deque(call.specs)
        self.suspects: deque[EpisodeSpec] = deque()
        """Run alone, after everything else."""
        self.num_returned = 0
        self._call = call
        self._num_workers = num_workers
        self._deaths: Counter[EpisodeSpec] = Counter()
        self._num_set_aside = 0
        self._num_worlds: int | None = None

    def tell(self, remote: Remote) -> None:
        """Keep a worker supplied; where nothing is left, tell it to finish what it has."""
        while self.todo and len(remote.calls) < _CALLS_AHEAD:
            size = self._block_size(remote)
            block = [self.todo.popleft() for _ in range(size)]
            remote.tell(replace(self._call, specs=block, more_follow=bool(self.todo)))
        if remote.expects_more and not self.todo:
            remote.tell(replace(self._call, specs=[]))
        if not remote.calls and self.suspects:
            remote.tell(replace(self._call, specs=[self.suspects.popleft()]))

    def take_back(self, remote: Remote, error: Exception) -> dict[EpisodeSpec, str]:
        """Queue again what a dead worker had in hand, and return what is to be set aside.

        Raises:
            RuntimeError: telling it again would be in vain.
        """
        import ray

        if isinstance(error, ray.exceptions.ActorDiedError) and error.actor_init_failed:
            raise RuntimeError("a worker could not make its world or its policy") from error
        self._deaths.update(set(remote.told))
        fatal = [spec for spec in remote.told if self._deaths[spec] >= _FATAL_DEATHS]
        self._num_set_aside += len(fatal)
        if self._num_set_aside >= _FATAL_DEATHS and not self.num_returned:
            raise RuntimeError("workers fail with every episode") from error
        for spec in remote.told:
            if self._deaths[spec] == 1:
                self.todo.append(spec)
            elif spec not in fatal:
                self.suspects.append(spec)
        return dict.fromkeys(fatal, str(error).strip())

    def _block_size(self, remote: Remote) -> int:
        """A worker's worlds at first, then less towards the end, so that all finish at about the same time."""
        import ray

        if self._num_worlds is None:
            try:
                self._num_worlds = ray.get(remote.num_worlds_ref)
            except ray.exceptions.RayError as error:
                raise RuntimeError("a worker could not make its world or its policy") from error
        share = self._num_workers if not remote.told else 2 * self._num_workers
        return max(1, min(self._num_worlds, math.ceil(len(self.todo) / share)))
