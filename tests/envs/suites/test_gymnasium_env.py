"""One table behind gymnasium.make, with the contract that LeRobot's tools expect."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from gymnasium.vector.utils import create_shared_memory, read_from_shared_memory, write_to_shared_memory
from tables import BLIND, begin, busy_actions, spec

from envs.instructions import InstructionSpace
from envs.registration import env_ids, register_envs
from envs.tabletop.env import TabletopEnv
from envs.tabletop.tasks import EVERY_TASK, TASKS
from envs.tabletop.world import TabletopWorld

ROOT = Path(__file__).parents[3]


def make(env_id: str, **kwargs: Any) -> TabletopEnv:
    env = gymnasium.make(env_id, **kwargs).unwrapped
    assert isinstance(env, TabletopEnv)
    return env


def test_every_task_has_an_id_in_camel_case() -> None:
    assert sorted(env_ids().values()) == sorted(EVERY_TASK)
    assert env_ids()["llamarm/PickPlace-v0"] == "pick_place"
    for env_id, task in env_ids().items():
        assert gymnasium.spec(env_id).kwargs == {"task": task}
    register_envs()  # a second time: nothing is overwritten, nothing is warned of


def test_importing_envs_registers_and_loads_no_simulator() -> None:
    code = (
        "import sys, envs, gymnasium\n"
        "assert 'llamarm/PickPlace-v0' in gymnasium.registry\n"
        "print(*({'mujoco', 'envs.tabletop', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stdout.split()


def test_gymnasiums_checker_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(make("llamarm/PickPlace-v0", render_mode="rgb_array"))


def test_it_has_the_interface_of_lerobots_environments() -> None:
    env = make("llamarm/Lift-v0")
    observation, info = env.reset(seed=5)
    assert {name: frame.shape for name, frame in observation["pixels"].items()} == {
        "front": (128, 128, 3),
        "wrist": (64, 64, 3),
    }
    assert observation["agent_pos"].dtype == np.float32
    assert observation["instruction"] == info["instruction"] == env.task_description
    assert env.task == "lift"
    assert env._max_episode_steps == TASKS["lift"].max_steps
    assert info["is_success"] is False
    assert info["episode_id"] == "tabletop/lift/train/5"
    *_, info = env.step(env.action_space.sample())
    assert info["is_success"] is False
    assert set(info["reward_terms"]) == {"success", "reach", "progress"}
    env.close()


def test_it_equals_a_world_with_num_worlds_1() -> None:
    world, env = TabletopWorld(1), make("llamarm/PickPlace-v0", variation="execution")
    expected = begin(world, [spec("pick_place", 7, "execution")])
    observation, _ = env.reset(seed=7)
    for action in busy_actions(1, 5)[0]:
        for camera, frames in expected["frames"].items():
            np.testing.assert_array_equal(observation["pixels"][camera], frames[0])
        np.testing.assert_array_equal(observation["agent_pos"], expected["state"][0])
        assert observation["instruction"] == expected["instruction"][0]
        expected = world.step_chunk(action[None, None]).observation
        observation, *_ = env.step(action)


def test_success_terminates_and_the_step_limit_truncates_without_a_time_limit_wrapper() -> None:
    env = TabletopEnv("reach", config=BLIND)
    env.reset(seed=1)
    for step in range(1, TASKS["reach"].max_steps + 1):
        _, reward, terminated, truncated, info = env.step(np.zeros(7, np.float32))
        assert (terminated, truncated) == (False, step == TASKS["reach"].max_steps)
        assert reward == 0.0
    env.reset(seed=1)
    terminated = False
    info: dict[str, Any] = {}
    while not terminated:
        _, reward, terminated, truncated, info = env.step(env.expert_action())
        assert not truncated
        assert info["is_success"] is terminated
        assert reward == float(terminated)
    assert info["failure"] == ""
    assert gymnasium.spec("llamarm/Reach-v0").max_episode_steps is None


def test_render_shows_the_front_camera_larger_and_does_not_change_observations() -> None:
    env = TabletopEnv("stack", render_mode="rgb_array")
    observation, _ = env.reset(seed=2)
    video = env.render()
    assert video is not None
    assert video.shape == (256, 256, 3)
    small = video.reshape(128, 2, 128, 2, 3).mean(axis=(1, 3))
    assert np.abs(small - observation["pixels"]["front"]).mean() < 4
    again, _ = env.reset(seed=2)
    np.testing.assert_array_equal(again["pixels"]["front"], observation["pixels"]["front"])
    assert TabletopEnv("stack", config=BLIND).render() is None


def test_a_spec_begins_exactly_its_episode() -> None:
    env = TabletopEnv("lift", config=BLIND)
    wanted = spec("lift", 12, "paraphrase")
    _, info = env.reset(options={"spec": wanted})
    assert info["episode_id"] == wanted.id
    assert info["instruction"] == TabletopEnv("lift", "paraphrase", config=BLIND).reset(seed=12)[1]["instruction"]
    with pytest.raises(ValueError, match="is of task 'stack'; this environment is 'lift'"):
        env.reset(options={"spec": spec("stack")})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"specs": [spec("lift", 3)]}, "reset has no option 'specs'; options: 'spec', 'variation'"),
        ({"variaton": "vision", "x": 1}, "reset has no option 'variaton', 'x'; options: 'spec', 'variation'"),
        ({"variation": "night"}, "variation 'night' does not exist; variations: train, vision"),
        (
            {"spec": "tabletop/lift/train/3"},
            "an episode is begun by an EpisodeSpec(suite=..., task=..., seed=...), got",
        ),
        ({"spec": spec("lift", 3), "variation": "vision"}, "options has a spec, with its variation, and another"),
    ],
)
def test_unknown_or_contradictory_reset_options_are_rejected(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        TabletopEnv("lift", config=BLIND).reset(seed=1, options=options)


def test_a_variation_passed_to_reset_applies_to_that_episode_only() -> None:
    env = TabletopEnv("lift", config=BLIND)
    assert env.reset(seed=3, options={"variation": "vision"})[1]["episode_id"] == "tabletop/lift/vision/3"
    assert env.reset(seed=3)[1]["episode_id"] == "tabletop/lift/train/3"


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"task": "juggle"}, "task 'juggle' does not exist in tabletop; tasks: reach, lift"),
        ({"task": "lift", "variation": "night"}, "variation 'night' does not exist; variations: train, vision"),
        ({"task": "lift", "render_mode": "human"}, "render_mode 'human' does not exist; modes: rgb_array, or None"),
    ],
)
def test_unknown_names_are_rejected_with_a_list_of_existing_ones(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        TabletopEnv(**kwargs)


@pytest.mark.parametrize(
    ("vector_env", "settings"),
    [(SyncVectorEnv, {}), (AsyncVectorEnv, {"shared_memory": False}), (AsyncVectorEnv, {"shared_memory": True})],
    ids=["sync", "async", "shared memory"],
)
def test_instructions_pass_through_every_vector_env(vector_env: Any, settings: dict[str, Any]) -> None:
    alone = TabletopEnv("reach", config=BLIND)
    said = {seed: alone.reset(seed=seed)[0]["instruction"] for seed in (1, 2, 4, 5)}
    assert len(set(said.values())) > 2
    envs = vector_env([partial(TabletopEnv, "reach", config=BLIND)] * 2, **settings)
    try:
        first, info = envs.reset(seed=1)
        assert first["instruction"] == (said[1], said[2]) == tuple(info["instruction"])
        assert first in envs.observation_space
        assert envs.step(envs.action_space.sample())[0]["instruction"] == (said[1], said[2])
        again, info = envs.reset(seed=4, options={"variation": "vision"})
        assert again["instruction"] == (said[4], said[5])
        assert info["episode_id"].tolist() == ["tabletop/reach/vision/4", "tabletop/reach/vision/5"]
        assert first["instruction"] == (said[1], said[2]), "what was given stays"
    finally:
        envs.close()


def test_shared_memory_holds_the_latest_instructions() -> None:
    space = InstructionSpace()
    memory = create_shared_memory(space, n=2)
    shown: Any = read_from_shared_memory(space, memory, n=2)
    for index, sentence in enumerate(("lift it", "put it down", "x" * 256)):
        write_to_shared_memory(space, index % 2, sentence, memory)
    assert tuple(shown) == ("x" * 256, "put it down") == copy.deepcopy(shown)
    assert (shown[1], shown[:1], len(shown)) == ("put it down", ("x" * 256,), 2)
    with pytest.raises(ValueError, match="an instruction has at most 256 characters, got 257"):
        write_to_shared_memory(space, 0, "x" * 257, memory)


def test_several_of_them_run_in_gymnasiums_own_vector_env() -> None:
    envs = gymnasium.make_vec("llamarm/Push-v0", num_envs=2)
    assert isinstance(envs, gymnasium.vector.SyncVectorEnv)
    observation, info = envs.reset(seed=3)
    assert observation["agent_pos"].shape == (2, 17)
    assert envs.call("task_description") == observation["instruction"]
    *_, info = envs.step(envs.action_space.sample())
    assert info["is_success"].tolist() == [False, False]
    envs.close()
