"""The worker's process, and the messages between it and the driver.

A worker has two threads: one makes the world and runs the episodes, the other answers the driver's `heartbeat`. Neither
waits for the other. If a world hangs, the heartbeat's counter stops; if it hangs in C code that holds Python's GIL, the
heartbeat is not answered.
"""

from __future__ import annotations

import os
import platform
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from envs.types import EpisodeSpec, Observation
from envs.world import World
from rollout.collect import collect
from rollout.peak_memory import peak_memory_gb
from rollout.types import Trajectory
from rollout.weights import Published, pull
from vla_model.types import ActionChunk, Policy


@dataclass(frozen=True)
class Call:
    """A block of work for a worker."""

    specs: list[EpisodeSpec]
    more_follow: bool
    """True: return when all specs have begun, and continue with the next call. False: return when all have ended."""
    weights: Published | None
    n_action_steps: int | None
    all_frames: bool
    wrap: Callable[[Policy], Policy] | None = None
    """Gives the policy that acts, from the worker's; None for the worker's own."""


@dataclass(frozen=True)
class WorkerInfo:
    """Sent once a worker has made its world and its policy."""

    num_worlds: int
    pid: int
    node: str
    """Host and Ray node id."""


@dataclass(frozen=True)
class Heartbeat:
    """Progress and memory of a worker."""

    num_policy_calls: int
    """Increases with every decision and with every episode that begins."""
    busy: bool
    """Whether it is running a call."""
    peak_memory_gb: float


class Collector:
    """Runs in a worker's process, or in the driver's with 0 workers: a collect that gets its specs block by block."""

    def __init__(self, make_world: Callable[[], World], make_policy: Callable[[World], Policy]) -> None:
        self._world = make_world()
        self._policy = _CountedPolicy(make_policy(self._world))
        self._stream = _SpecStream()
        self._episodes: Iterator[Trajectory] | None = None
        self._busy = False

    def info(self) -> WorkerInfo:
        import ray

        node_id = ray.get_runtime_context().get_node_id()
        return WorkerInfo(self._world.num_envs, os.getpid(), f"{platform.node()}/{node_id[:8]}")

    def heartbeat(self) -> Heartbeat:
        """Called in the second thread, while `run` runs in the first."""
        return Heartbeat(self._policy.num_calls, self._busy, peak_memory_gb())

    def collect(self, specs: Iterable[EpisodeSpec], call: Call) -> Iterator[Trajectory]:
        """Start a new collect with the call's weights."""
        pull(self._policy, call.weights)
        policy = self._policy if call.wrap is None else call.wrap(self._policy)
        return collect(policy, self._world, specs, n_action_steps=call.n_action_steps, all_frames=call.all_frames)

    def run(self, call: Call) -> Iterator[Trajectory]:
        """Continue the running episodes, if any, and run the call's specs."""
        self._busy = True
        self._stream.specs.extend(call.specs)
        if self._episodes is None:
            self._episodes = self.collect(self._stream, call)
        for trajectory in self._episodes:
            yield trajectory
            if call.more_follow and not self._stream.specs:
                break
        else:
            self._episodes = None
        self._busy = False

    def close(self) -> None:
        self._world.close()


class _CountedPolicy:
    """Wraps a policy and counts its calls."""

    def __init__(self, policy: Policy) -> None:
        self.version = policy.version
        self.num_calls = 0
        self._policy: Any = policy

    def begin(self, worlds: Sequence[int], instructions: tuple[str, ...], seeds: tuple[int, ...]) -> None:
        self.num_calls += 1
        self._policy.begin(worlds, instructions, seeds)
        self.version = self._policy.version

    def act(self, worlds: Sequence[int], observation: Observation) -> ActionChunk:
        self.num_calls += 1
        return self._policy.act(worlds, observation)

    def load_weights(self, version: int, state_dict: Mapping[str, Any]) -> None:
        self._policy.load_weights(version, state_dict)
        self.version = self._policy.version


class _SpecStream:
    """An iterator that continues after exhaustion once specs are added."""

    def __init__(self) -> None:
        self.specs: deque[EpisodeSpec] = deque()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> EpisodeSpec:
        if not self.specs:
            raise StopIteration
        return self.specs.popleft()
