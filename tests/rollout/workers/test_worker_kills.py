"""kill -9 in the real world: a worker again and again during 200 episodes, and the trajectories of a quiet run."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from functools import partial

import pytest
from descendants import descendants
from fake_world import contents

from envs.make import make_world
from envs.types import EpisodeSpec
from envs.world import World
from rollout.expert import ExpertPolicy
from rollout.types import Trajectory
from rollout.workers.workers import Workers, WorkersConfig

SPECS = [
    EpisodeSpec(suite="tabletop", task=task, seed=seed) for seed in range(100) for task in ("pick_place", "open_drawer")
]
KILL_EVERY = 30
"""Episodes."""


def make_expert(world: World) -> ExpertPolicy:
    return ExpertPolicy(world, noise_std=0.2)


@pytest.mark.long
def test_killing_a_worker_again_and_again_does_not_change_200_episodes() -> None:
    worlds = partial(make_world, "tabletop", 2)
    with Workers(worlds, make_expert, WorkersConfig(workers=0)) as alone:
        quiet = contents(alone.collect(SPECS))
    killed: list[int] = []

    def disturbed(trajectories: Iterator[Trajectory]) -> Iterator[Trajectory]:
        rng = random.Random(0)
        for number, trajectory in enumerate(trajectories, 1):
            yield trajectory
            busy = [pid for pid, name in descendants(os.getpid()).items() if name.startswith("ray::Collector.run")]
            if busy and number >= KILL_EVERY * (len(killed) + 1):
                killed.append(rng.choice(sorted(busy)))
                os.kill(killed[-1], signal.SIGKILL)

    with Workers(worlds, make_expert, WorkersConfig(workers=2)) as workers:
        found = contents(disturbed(workers.collect(SPECS)))
    assert len(quiet) == 200
    assert found == quiet
    assert not workers.report.set_aside
    assert {death.cause for death in workers.report.deaths} == {"killed"}
    assert {death.pid for death in workers.report.deaths} <= set(killed)
    assert len(workers.report.deaths) >= 3
