"""Rollout workers: Ray processes that run `collect`; the same trajectories with any number of workers.

    driver                                              worker (one process: its own worlds, its own policy)
    run(block of specs, more follow) ------------->     begins them as its worlds become idle
    run(next block), queued behind the first            yields each trajectory as its episode ends
    <------------------------------------ trajectory    returns when it needs the next block
    yields it to the caller                             (its other worlds' episodes continue in the next run)
    heartbeat, every second  ------------------------->
    <------- number of decisions, busy flag, memory     answered in a second thread

Who waits: the driver, for the next trajectory of any worker. Who unblocks it: a worker that yields, returns, raises or
dies, and the timer of the heartbeats. A worker that raises, dies, hangs or exceeds its memory limit is replaced, and
its unfinished specs are queued again, so every spec returns exactly once (workers/queue.py says when a spec runs alone
or is set aside). With an inference process (rollout/inference.py), its death ends all workers. Ray is imported when the
first worker starts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from types import TracebackType
from typing import Any, Self

from envs.errors import UserError
from envs.types import EpisodeSpec
from envs.world import World
from rollout.inference import InferenceConfig, RemotePolicy, start_server
from rollout.types import Trajectory
from rollout.weights import Published, check_order
from rollout.workers.handle import (
    CHECK_EVERY_S,
    Remote,
    UnhealthyWorkerError,
    WorkersConfig,
    environment,
    explain,
    start_ray,
)
from rollout.workers.process import Call, Collector
from rollout.workers.queue import RestartLimits, WorkerQueue
from rollout.workers.report import Death, WorkerReport
from vla_model.types import Policy

__all__ = ["InferenceConfig", "WorkerReport", "Workers", "WorkersConfig"]

MAX_BROKEN_FIRST = 16
"""Number of broken episodes, without a single valid one, after which a collect is aborted."""


class Workers:
    """A pool of rollout workers. Use as a context manager, or call `close`."""

    def __init__(
        self,
        make_world: Callable[[], World],
        make_policy: Callable[[World], Policy],
        config: WorkersConfig,
    ) -> None:
        """Nothing starts before the first use.

        Args:
            make_world: called in each worker's process.
            make_policy: called there with that world; with `config.inference` called once, in the inference process,
                with a world that is closed afterwards.
            config: number, place and limits of the workers.
        """
        self.report = WorkerReport()
        """Every worker that was replaced, and the specs that were given up. Assign a new one to begin another."""
        self._make_world, self._make_policy = make_world, make_policy
        self._config = config
        self._num_cpus = 0.0
        self._local: Collector | None = None
        self._remotes: list[Remote] = []
        self._num_made = 0
        self._server: Any = None
        self._latest: Published | None = None
        self._in_use: Published | None = None
        """The weights of the running collect."""

    def publish(self, version: int, state_dict: Mapping[str, Any]) -> None:
        """Publish new weights for the next collect. The policies must be rollout.weights.UpdatablePolicy.

        Raises:
            UserError: the version does not increase.
        """
        check_order(self._latest, version)
        if self._config.workers == 0:
            self._latest = Published(version, lambda: state_dict)
            return
        self._start()
        import ray

        self._latest = Published(version, partial(ray.get, ray.put(dict(state_dict))))

    def collect(
        self,
        specs: Sequence[EpisodeSpec],
        *,
        n_action_steps: int | None = None,
        all_frames: bool = False,
        wrap: Callable[[Policy], Policy] | None = None,
    ) -> Iterator[Trajectory]:
        """Like rollout.collect.collect, without the specs that failed.

        `report.set_aside` has the specs that killed every worker, `report.broken` those whose world or policy failed.

        Args:
            wrap: called in each worker's process with its policy; returns the policy that acts in these episodes, e.g.
                a blind control.

        Raises:
            UserError: as collect, with 0 workers; or the world failed in each of the first MAX_BROKEN_FIRST episodes.
            RuntimeError: a worker could not create its world or policy, or too many workers died before the first
                trajectory; the cause is the worker's own error.
        """
        self._in_use = self._latest
        own_policy = self._config.workers == 0 or self._config.inference is None
        call = Call(list(specs), False, self._in_use if own_policy else None, n_action_steps, all_frames, wrap)
        if self._config.workers == 0:
            self._local = self._local or Collector(self._make_world, self._make_policy)
            yield from self._valid(self._local.collect(call.specs, call))
            return
        self._start()
        self._update_server()
        try:
            yield from self._valid(self._dispatch(WorkerQueue(call)))
        finally:
            # A caller that stops early leaves episodes running; replacing the worker is simpler than aborting them.
            for remote in [remote for remote in self._remotes if remote.calls]:
                self._end(remote)
                self._remotes.remove(remote)

    def close(self) -> None:
        """End the workers; Ray itself runs until this process ends."""
        if self._local is not None:
            self._local.close()
            self._local = None
        for remote in self._remotes:
            self._end(remote)
        self._remotes.clear()
        self._end_server()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _valid(self, trajectories: Iterator[Trajectory]) -> Iterator[Trajectory]:
        """Yield the valid trajectories, and report the broken ones."""
        for trajectory in trajectories:
            if not trajectory.broken:
                self.report.any_valid = True
                yield trajectory
                continue
            reason = trajectory.failure or ""
            self.report.broken[trajectory.spec] = reason
            if len(self.report.broken) >= MAX_BROKEN_FIRST and not self.report.any_valid:
                raise UserError(
                    f"none of the first {MAX_BROKEN_FIRST} episodes could be run to its end; of the last one {reason}"
                )

    def _start(self) -> None:
        """Start Ray, the inference server and missing workers."""
        alone = start_ray(self._config.ray_address)
        asked = self._config.cpus_per_worker
        self._num_cpus = asked if asked is not None else 0.0 if alone else 1.0
        if self._config.inference is not None and self._server is None:
            self._server = self._new_server(self._config.inference)
        while len(self._remotes) < self._config.workers:
            self._remotes.append(self._new_worker())

    def _new_worker(self) -> Remote:
        name = f"worker {self._num_made}"
        self._num_made += 1
        here = self._server is None
        make_policy = self._make_policy if here else partial(_remote_policy, self._server, name)
        return Remote(self._make_world, make_policy, self._config, num_cpus=self._num_cpus, name=name)

    def _end(self, remote: Remote) -> None:
        remote.kill()
        if self._server is not None:
            self._server.forget.remote(remote.name)

    def _new_server(self, config: InferenceConfig) -> Any:
        return start_server(
            partial(_policy_of_a_world, self._make_world, self._make_policy),
            config,
            self._in_use,
            environment=environment(),
            deadline_s=self._config.start_deadline_s,
        )

    def _update_server(self) -> None:
        """Load the weights of this collect; no episode may run."""
        if self._server is not None and self._in_use is not None:
            import ray

            ray.get(self._server.pull.remote(self._in_use))

    def _end_server(self) -> None:
        if self._server is not None:
            import ray

            ray.kill(self._server, no_restart=True)
            self._server = None

    def _dispatch(self, queue: WorkerQueue) -> Iterator[Trajectory]:
        """Assign specs to workers and yield trajectories until every spec has returned or is set aside."""
        import ray

        limits = RestartLimits(len(self._remotes))
        checked_s = time.monotonic()
        while queue or any(remote.calls for remote in self._remotes):
            queue.dispatch(self._remotes)
            awaited = {id(ref): remote for remote in self._remotes if (ref := remote.awaited) is not None}
            ready, _ = ray.wait([r.awaited for r in awaited.values()], num_returns=1, timeout=CHECK_EVERY_S)
            for remote in [awaited[id(ref)] for ref in ready]:
                try:
                    trajectory = remote.receive()
                except ray.exceptions.RayError as error:
                    self._replace(remote, queue, limits, error)
                    continue
                limits.note_progress(trajectory)
                if trajectory is not None:
                    yield trajectory
            if (elapsed_s := time.monotonic() - checked_s) >= CHECK_EVERY_S:
                checked_s += elapsed_s
                for remote in list(self._remotes):
                    try:
                        remote.check(elapsed_s)
                    except (ray.exceptions.RayError, UnhealthyWorkerError) as error:
                        self._replace(remote, queue, limits, error)
                        break

    def _replace(self, remote: Remote, queue: WorkerQueue, limits: RestartLimits, error: Exception) -> None:
        """Report a worker's end, queue its specs again, and start a new worker."""
        cause, reason = explain(error)
        self.report.deaths.append(
            Death(
                time=datetime.now(UTC),
                worker=self._remotes.index(remote),
                pid=remote.info.pid if remote.info else None,
                node=remote.info.node if remote.info else None,
                cause=cause,
                reason=reason,
                running=tuple(remote.running),
            )
        )
        given_up = queue.requeue(remote.assigned, [] if cause == "inference" else remote.running)
        if given_up is not None:
            self.report.set_aside[given_up] = f"{cause}: {reason}"
        limits.note_death(remote, error)
        self._end(remote)
        if cause == "inference" or (cause == "hung" and self._server is not None):
            # All other workers wait for the server too, or will.
            self._end_server()
            for other in self._remotes:
                if other is not remote:
                    queue.requeue(other.assigned, [])
                    other.kill()
            self._remotes.clear()
            self._start()
        else:
            self._remotes[self._remotes.index(remote)] = self._new_worker()


def _remote_policy(server: Any, worker: str, _: World) -> RemotePolicy:
    return RemotePolicy(server, worker)


def _policy_of_a_world(make_world: Callable[[], World], make_policy: Callable[[World], Policy]) -> Policy:
    with closing(make_world()) as world:
        return make_policy(world)
