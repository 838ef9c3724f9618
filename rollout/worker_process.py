"""One worker: what runs in its process, and the driver's handle on it. Ray is imported when the first one starts."""

from __future__ import annotations

import os
import secrets
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Self

from envs.types import EpisodeSpec
from envs.world import World
from rollout.collect import collect
from rollout.types import Trajectory
from rollout.weights import Published, pull
from vla_model.types import Policy

_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


def start_ray() -> None:
    """Join the Ray cluster that RAY_ADDRESS names, else start one on this machine that only this user can reach.

    It runs until this process ends, for all that use it; nothing happens where it runs already.

    Ray's own switch for staying on the loopback address is called RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER. Ray demands a
    token of whoever connects; ours lives as long as this process. Both are read when Ray is imported: a program that
    imported it before has Ray's defaults, a token in the user's home and all addresses of the machine.
    """
    ours = "RAY_ADDRESS" not in os.environ
    if ours and "ray" not in sys.modules:
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        if "RAY_AUTH_TOKEN_PATH" not in os.environ:
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    import ray

    if not ray.is_initialized():
        local = {"num_cpus": 1, "include_dashboard": False} if ours else {}
        ray.init(log_to_driver=False, logging_level="ERROR", **local)


@dataclass(frozen=True)
class Call:
    """What a worker is told at once."""

    specs: list[EpisodeSpec]
    more_follow: bool
    """Return when all specs have begun, and go on with the next call; else return when all have ended."""
    weights: Published | None
    execute_steps: int | None
    all_frames: bool


class Collector:
    """What runs in a worker's process, or in ours: a collect that is told its specs block by block."""

    def __init__(self, make_world: Callable[[], World], make_policy: Callable[[World], Policy]) -> None:
        self._world = make_world()
        self._policy: Any = make_policy(self._world)
        self._inbox = _Inbox()
        self._episodes: Iterator[Trajectory] | None = None

    def num_worlds(self) -> int:
        return self._world.num_envs

    def collect(self, specs: Iterable[EpisodeSpec], call: Call) -> Iterator[Trajectory]:
        """Begin anew, with the call's weights."""
        pull(self._policy, call.weights)
        return collect(self._policy, self._world, specs, execute_steps=call.execute_steps, all_frames=call.all_frames)

    def run(self, call: Call) -> Iterator[Trajectory]:
        """Go on with the episodes that run, if any do, and with the call's specs."""
        self._inbox.specs.extend(call.specs)
        if self._episodes is None:
            self._episodes = self.collect(self._inbox, call)
        for trajectory in self._episodes:
            yield trajectory
            if call.more_follow and not self._inbox.specs:
                return
        self._episodes = None

    def close(self) -> None:
        self._world.close()


class _Inbox:
    """An iterator that goes on after it was exhausted, once specs have been added."""

    def __init__(self) -> None:
        self.specs: deque[EpisodeSpec] = deque()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> EpisodeSpec:
        if not self.specs:
            raise StopIteration
        return self.specs.popleft()


class Remote:
    """The driver's side of one worker."""

    def __init__(self, make_world: Callable[[], World], make_policy: Callable[[World], Policy]) -> None:
        self._make = (make_world, make_policy)
        self._start()

    def restart(self) -> None:
        """A new process, which has been told nothing."""
        self.kill()
        self._start()

    def tell(self, call: Call) -> None:
        self.calls.append(self._actor.run.options(num_returns="streaming").remote(call))
        self.told.extend(call.specs)
        self.expects_more = call.more_follow

    def kill(self) -> None:
        import ray

        ray.kill(self._actor, no_restart=True)

    def _start(self) -> None:
        import ray

        # A worker imports the world's and the policy's modules from where we did.
        env_vars = _ONE_THREAD | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        # Who asks for workers says how many, so Ray's own count of CPUs must not make them wait for each other.
        actor = ray.remote(num_cpus=0, scheduling_strategy="SPREAD", runtime_env={"env_vars": env_vars})(Collector)
        self._actor: Any = actor.remote(*self._make)
        self.num_worlds_ref = self._actor.num_worlds.remote()
        self.calls: deque[Any] = deque()
        """Generators of object references, in the order in which the worker runs them."""
        self.told: list[EpisodeSpec] = []
        """Specs whose trajectory has not come yet."""
        self.expects_more = False
