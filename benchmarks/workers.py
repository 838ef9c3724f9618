"""Start time of workers, and restart time of one that was killed.

    python -m benchmarks.workers --out docs/results/workers.md

Wall-clock, with Ray up: from the call of `collect` to the first trajectory, and from `kill -9` of a worker to the next
trajectory of the process that replaces it. Both include an episode of the task `reach`, about ten control steps, and
for a learned policy, importing torch and unpacking the weights. One worker, so no other worker's trajectory comes in
between.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import tyro

from benchmarks.document import head
from benchmarks.untrained import untrained
from envs.make import make_world
from envs.types import EpisodeSpec
from envs.world import World
from rollout.expert import ExpertPolicy
from rollout.workers.handle import start_ray
from rollout.workers.workers import Workers, WorkersConfig
from vla_model.policy import VLAPolicy
from vla_model.types import Policy


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure."""

    repeats: int = 5
    num_worlds: int = 4
    out: Path | None = None
    """File to which the table is written, in addition to the screen."""


def in_process(make_policy: Callable[[World], Policy], world: World) -> Policy:
    """A policy whose version is the id of its process."""
    policy = make_policy(world)
    policy.version = os.getpid()
    return policy


def measure(make_policy: Callable[[World], Policy], options: Options) -> tuple[list[float], list[float]]:
    """Seconds to the first trajectory, and from each kill to the next trajectory of a new process."""
    starts_s, restarts_s = [], []
    specs = [EpisodeSpec(suite="tabletop", task="reach", seed=seed) for seed in range(1000)]
    for _ in range(options.repeats):
        worlds = partial(make_world, "tabletop", options.num_worlds)
        with Workers(worlds, partial(in_process, make_policy), WorkersConfig(workers=1)) as workers:
            began_s, killed = time.monotonic(), None
            for trajectory in workers.collect(specs):
                if killed is None:
                    starts_s.append(time.monotonic() - began_s)
                    killed = trajectory.policy_version
                    began_s = time.monotonic()
                    os.kill(killed, signal.SIGKILL)
                elif trajectory.policy_version != killed:
                    restarts_s.append(time.monotonic() - began_s)
                    break
    return starts_s, restarts_s


def main(options: Options) -> None:
    """Measure, print and write."""
    began_s = time.monotonic()
    start_ray()
    ray_s = time.monotonic() - began_s
    how = (
        f"Seconds to the first trajectory, median (largest) of {options.repeats}, with one worker of "
        f"{options.num_worlds} tabletop worlds. Starting Ray took {ray_s:.1f} s before. {os.cpu_count()} cores."
    )
    lines = [
        *head("Workers: start and restart", "workers", how),
        "",
        "| policy | start | after kill -9 |",
        "|---|---|---|",
    ]
    example = make_world("tabletop", 1)
    nano = VLAPolicy(*untrained(example.world_spec))
    example.close()
    policies: dict[str, Callable[[World], Policy]] = {"scripted expert": ExpertPolicy, "nano": lambda _: nano}
    for name, make_policy in policies.items():
        cells = [f"{np.median(times):.1f} ({max(times):.1f})" for times in measure(make_policy, options)]
        lines.append(f"| {name} | {cells[0]} | {cells[1]} |")
        print(lines[-1], flush=True)
    if options.out is not None:
        options.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
