"""Meta-World in Ray workers: the same episodes as in this process, though a world's own process is killed among them.

Skipped where `make metaworld` has not built its interpreter.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from functools import partial

import pytest
from descendants import descendants
from fake_world import contents

from envs.make import make_world
from envs.suites.metaworld.world import INTERPRETER
from envs.types import EpisodeSpec
from rollout.expert import ExpertPolicy
from rollout.types import Trajectory
from rollout.workers.workers import Workers, WorkersConfig

try:
    INTERPRETER.python()
except ValueError as error:
    pytest.skip(str(error), allow_module_level=True)

SPECS = [EpisodeSpec(suite="metaworld", task="handle-press-v3", seed=seed) for seed in range(5)]


def test_killing_a_worlds_process_does_not_change_the_episodes() -> None:
    worlds = partial(make_world, "metaworld-mt50", 2)
    with Workers(worlds, ExpertPolicy, WorkersConfig(workers=0)) as alone:
        quiet = contents(alone.collect(SPECS))

    def disturbed(trajectories: Iterator[Trajectory]) -> Iterator[Trajectory]:
        yield next(trajectories)
        commands = descendants(os.getpid())
        of_worlds = [pid for pid, command in commands.items() if "hosted/host.py" in command]
        assert len(of_worlds) == 4, "the host, the process that imports the suite, and its two forks"
        os.kill(max(of_worlds), signal.SIGKILL)
        yield from trajectories

    with Workers(worlds, ExpertPolicy, WorkersConfig(workers=1)) as workers:
        assert contents(disturbed(workers.collect(SPECS))) == quiet
    (death,) = workers.report.deaths
    assert death.cause == "raised"
    assert "the process of Meta-World's world" in death.reason
    assert not workers.report.set_aside
