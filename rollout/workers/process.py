"""What runs in a worker's process, and what it and the driver say to each other.

A worker has two threads: one makes the world and runs the episodes, the other answers the driver's `heartbeat`. Neither
waits for the other. A world that hangs shows in pulses that stop counting; one that hangs inside C code and holds
Python's lock shows in pulses that are not answered.
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
    """What a worker is told at once."""

    specs: list[EpisodeSpec]
    more_follow: bool
    """Return when all specs have begun, and go on with the next call; else return when all have ended."""
    weights: Published | None
    n_action_steps: int | None
    all_frames: bool


@dataclass(frozen=True)
class WorkerInfo:
    """A worker that has made its world and its policy."""

    num_worlds: int
    pid: int
    node: str
    """Host and Ray's id of the node."""


@dataclass(frozen=True)
class Heartbeat:
    """A sign of life."""

    num_policy_calls: int
    """Grows with every decision and with every episode that begins."""
    busy: bool
    """Whether it has something to do."""
    peak_memory_gb: float


class Collector:
    """What runs in a worker's process, or in ours: a collect that is told its specs block by block."""

    def __init__(self, make_world: Callable[[], World], make_policy: Callable[[World], Policy]) -> None:
        self._world = make_world()
        self._policy = _CountedPolicy(make_policy(self._world))
        self._inbox = _Inbox()
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
        """Begin anew, with the call's weights."""
        pull(self._policy, call.weights)
        return collect(self._policy, self._world, specs, n_action_steps=call.n_action_steps, all_frames=call.all_frames)

    def run(self, call: Call) -> Iterator[Trajectory]:
        """Go on with the episodes that run, if any do, and with the call's specs."""
        self._busy = True
        self._inbox.specs.extend(call.specs)
        if self._episodes is None:
            self._episodes = self.collect(self._inbox, call)
        for trajectory in self._episodes:
            yield trajectory
            if call.more_follow and not self._inbox.specs:
                break
        else:
            self._episodes = None
        self._busy = False

    def close(self) -> None:
        self._world.close()


class _CountedPolicy:
    """A policy that counts how often it is asked for anything."""

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
