"""examples/lerobot_env_llamarm: our worlds with the observations and factories of LeRobot, without LeRobot."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import gymnasium
import numpy as np
import pytest

from agent.evaluation.evaluate import evaluation_specs
from benchmarks.campaign.sides import SidesWorld

WORLD = "benchmarks.campaign.sides:make_world"


@pytest.fixture(name="package")
def imported(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parents[3] / "examples" / "lerobot_env_llamarm")
    package = import_module("lerobot_env_llamarm")
    monkeypatch.delitem(sys.modules, package.__name__)
    return package


def test_an_environment_has_what_lerobot_reads_and_evaluations_episodes(package: ModuleType) -> None:
    env = package.WorldEnv(WORLD, "right")
    observation, info = env.reset(seed=2)
    (spec,) = [spec for spec in evaluation_specs("sides", ("right",), 3) if spec.seed == 1_000_002]
    assert info == {"is_success": False, "episode_id": spec.id}
    expected, _ = SidesWorld(1).reset_to([spec], [0])
    assert np.array_equal(observation["pixels"]["front"], expected["frames"]["front"][0])
    assert env.observation_space.contains(observation)
    assert (env.task, env.task_description) == ("right", "go right, number 1000002")
    assert env._max_episode_steps == 1000
    for step in range(1, 4):
        observation, reward, terminated, truncated, info = env.step(np.ones(1, np.float32))
        assert observation["agent_pos"] == step
    assert (reward, terminated, truncated, info) == (1.0, True, False, {"is_success": True, "failure": ""})


def test_the_factory_gives_vector_environments_by_suite_and_task(package: ModuleType) -> None:
    envs = package.make_envs(WORLD, ["left", "right"], n_envs=2)
    assert list(envs) == [WORLD]
    assert list(envs[WORLD]) == [0, 1]
    right = envs[WORLD][1]
    assert isinstance(right, gymnasium.vector.SyncVectorEnv)
    observation, _ = right.reset(seed=[0, 1])
    assert observation["pixels"]["front"].shape == (2, 16, 16, 3)
    assert right.call("task_description") == ("go right, number 1000000", "go right, number 1000001")
    assert len(package.make_envs(WORLD)[WORLD]) == 3, "all tasks where none is named"


def test_a_simulator_is_made_when_its_task_is_first_reset(package: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """LeRobot makes the environments of every task at once."""
    made: list[str] = []

    def making(name: str) -> SidesWorld:
        made.append(name)
        return SidesWorld(1)

    monkeypatch.setattr(package, "make_world", making)
    package.described.cache_clear()
    envs = package.make_envs(WORLD, n_envs=4)
    assert made == [WORLD], "one, for its spec and tasks"
    envs[WORLD][1].reset(seed=0)
    assert len(made) == 5
    envs[WORLD][1].close()
    envs[WORLD][0].close()
    assert len(made) == 5


def test_an_unknown_task_is_refused_with_those_that_there_are(package: ModuleType) -> None:
    with pytest.raises(ValueError, match="task 'up' does not exist; tasks: left, right, either"):
        package.WorldEnv(WORLD, "up")
