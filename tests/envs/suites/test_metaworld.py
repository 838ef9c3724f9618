"""Meta-World itself, in its own interpreter: what an episode begins with, shows and comes to, and who ends its process.

Skipped where `make metaworld` has not built that interpreter.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from envs.make import make_world
from envs.simulation.gl import choose_backend
from envs.suites.metaworld.sensor import PUBLISHED
from envs.suites.metaworld.world import INTERPRETER, MetaworldConfig, MetaworldWorld
from envs.types import EpisodeSpec

try:
    PYTHON = INTERPRETER.python()
except ValueError as error:
    pytest.skip(str(error), allow_module_level=True)


def spec(task: str, seed: int, variation: str = "train") -> EpisodeSpec:
    return EpisodeSpec(suite="metaworld", task=task, seed=seed, variation=variation)


@pytest.fixture(scope="module")
def world() -> Iterator[MetaworldWorld]:
    """Two worlds, used by test after test: none may depend on what ran in them before."""
    with closing(MetaworldWorld(2)) as world:
        yield world


def labels(world: MetaworldWorld, localization: np.ndarray) -> dict[str, float]:
    return dict(zip(world.world_spec.localization.names, localization.tolist(), strict=True))


def play_expert(world: MetaworldWorld, num_steps: int) -> list[np.ndarray]:
    """The states of both worlds, [N, S] each."""
    return [world.step_chunk(world.expert_action()[:, None]).states[:, 0] for _ in range(num_steps)]


def test_a_spec_gives_the_same_episode_in_any_world_and_after_any_other_episode(world: MetaworldWorld) -> None:
    first, info = world.reset_to([spec("push-v3", 3), spec("basketball-v3", 4)], [0, 1])
    states = play_expert(world, 15)
    again, info_again = world.reset_to([spec("basketball-v3", 4), spec("push-v3", 3)], [0, 1])
    assert (first["frames"]["corner2"] == again["frames"]["corner2"][::-1]).all()
    assert (first["state"] == again["state"][::-1]).all()
    assert (info["localization"] == info_again["localization"][::-1]).all()
    assert all((a == b[::-1]).all() for a, b in zip(states, play_expert(world, 15), strict=True))
    other, info = world.reset_to([spec("push-v3", 5)], [0])
    assert np.abs(info["localization"][0, :9] - info_again["localization"][1, :9]).max() > 0.01, "another seed"
    assert (other["frames"]["corner2"][1] == again["frames"]["corner2"][1]).sum() > 0


def test_the_first_frame_shows_the_goal_where_the_label_says(world: MetaworldWorld) -> None:
    seen, info = world.reset_to([spec("push-v3", 6), spec("pick-place-v3", 7)], [0, 1])
    for frame, localization, colour in zip(
        seen["frames"]["corner2"].astype(int), info["localization"], (1, 2), strict=True
    ):
        others = np.delete(frame, colour, axis=2).max(axis=2)
        rows, columns = np.nonzero(frame[:, :, colour] > 80 + others)  # push's goal is green, pick-place's blue
        height, width = frame.shape[:2]
        label = labels(world, localization)
        assert len(rows) >= 12
        assert columns.mean() == pytest.approx((label["goal_corner2_u"] + 1) * width / 2 - 0.5, abs=1.5)
        assert rows.mean() == pytest.approx((label["goal_corner2_v"] + 1) * height / 2 - 0.5, abs=1.5)


def test_experts_succeed_and_a_finished_world_does_not_move(world: MetaworldWorld) -> None:
    world.reset_to([spec("drawer-close-v3", 1), spec("reach-v3", 2)], [0, 1])
    steps = np.zeros(2, int)
    for _ in range(100):
        ended = world._terminated.copy()
        result = world.step_chunk(world.expert_action()[:, None], ended_frames=False)
        assert (result.num_steps == ~ended).all()
        steps += result.num_steps
        if result.done.all():
            break
    assert result.success.all() and not result.truncated.any()
    assert (steps < 100).all()
    still = world.step_chunk(np.ones((2, 3, 4)))
    assert still.num_steps.tolist() == [0, 0] and still.success.all() and not still.reward.any()
    assert (still.observation["frames"]["corner2"] == result.observation["frames"]["corner2"]).all()
    assert (world.expert_action() == 0).all()


def test_the_last_of_all_frames_is_the_frame_of_the_chunk(world: MetaworldWorld) -> None:
    actions = np.tile(np.array([0.5, 0.5, -0.5, 1.0], np.float32), (2, 3, 1))
    episodes = [spec("push-v3", 8), spec("door-open-v3", 8)]
    world.reset_to(episodes, [0, 1])
    last = world.step_chunk(actions)
    world.reset_to(episodes, [0, 1])
    every = world.step_chunk(actions, all_frames=True)
    assert every.all_frames is not None and every.all_frames["corner2"].shape == (2, 3, 144, 128, 3)
    assert (every.all_frames["corner2"][:, -1] == last.observation["frames"]["corner2"]).all()
    assert (every.all_frames["corner2"][:, 0] != every.all_frames["corner2"][:, -1]).any()
    assert (every.states == last.states).all() and last.num_steps.tolist() == [3, 3]
    assert set(last.reward_terms) == {"success", "dense"} and (last.reward_terms["dense"] > 0).all()


def test_invalid_input_is_rejected_before_any_step(world: MetaworldWorld) -> None:
    seen, _ = world.reset_to([spec("push-back-v3", 1), spec("push-back-v3", 1, "distinct")], [0, 1])
    assert seen["instruction"] == ("Push the puck to a goal", "Push the puck back to a goal")
    assert (seen["frames"]["corner2"][0] == seen["frames"]["corner2"][1]).all()
    with pytest.raises(ValueError, match="task 'fly-v3' does not exist in metaworld; tasks: assembly-v3, "):
        world.reset_to([spec("fly-v3", 0)], [0])
    with pytest.raises(ValueError, match="variation 'dark' does not exist; variations: train, distinct"):
        world.reset_to([spec("push-v3", 0, "dark")], [0])
    with pytest.raises(ValueError, match=r"actions must be \[2, k >= 1, 4\], got \[2, 4\]"):
        world.step_chunk(np.zeros((2, 4)))
    with pytest.raises(ValueError, match="action 'hand_dz' of world 1, step 0 of the chunk, is nan"):
        world.step_chunk(np.array([[[0, 0, 0, 0]], [[0, 0, np.nan, 0]]]))
    assert (world.step_chunk(np.zeros((2, 1, 4))).states[0] == world._state[1]).all()


def test_the_published_sensor_gives_the_frames_of_the_suite_s_own_renderer() -> None:
    reference = """
import json, sys
import mujoco, numpy as np
from metaworld.env_dict import ALL_V3_ENVIRONMENTS
env = ALL_V3_ENVIRONMENTS["door-open-v3"](render_mode="rgb_array", camera_name="corner2")
env.model.cam_pos[2] = [0.75, 0.075, 0.7]
env._set_task_called, env._freeze_rand_vec, env.seeded_rand_vec = True, False, True
env.seed(11)
env.reset()
mujoco.mj_forward(env.model, env.data)
np.save(sys.argv[1], np.flip(env.render(), (0, 1)))
for _ in range(5):
    observation = env.step(np.array([1.0, 0.5, -1.0, 1.0], np.float32))[0]
print(json.dumps(observation[:4].tolist()))
"""
    config = MetaworldConfig(sensor=PUBLISHED, max_steps=5)
    file = Path(f"/tmp/llamarm-reference-{os.getpid()}.npy")
    with closing(MetaworldWorld(1, config)) as world:
        seen, _ = world.reset_to([spec("door-open-v3", 11)], [0])
        out = subprocess.run(
            [str(PYTHON), "-c", reference, str(file)],
            env={**os.environ, "MUJOCO_GL": choose_backend(), "PYTHONPATH": ""},
            check=True,
            capture_output=True,
            text=True,
        )
        result = world.step_chunk(np.tile(np.array([1.0, 0.5, -1.0, 1.0], np.float32), (1, 8, 1)), ended_frames=False)
    drawn = np.load(file)
    file.unlink()
    assert np.abs(seen["frames"]["corner2"][0].astype(int) - drawn).mean() < 0.5
    assert result.states[0, 4] == pytest.approx(np.array(json.loads(out.stdout)), abs=1e-6)
    assert result.truncated.all() and not result.terminated.any() and result.num_steps.tolist() == [5]
    assert (result.states[0, 5:] == result.states[0, 4]).all()


def processes_of(host: int) -> list[int]:
    """The host, the process that imports the suite, and the worlds' in their order."""
    children = Path(f"/proc/{host}/task/{host}/children").read_text().split()
    return [host, *(pid for child in children for pid in processes_of(int(child)))]


def wait_until_gone(pids: list[int]) -> bool:
    def lives(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False

    until_s = time.monotonic() + 20
    while any(map(lives, pids)) and time.monotonic() < until_s:
        time.sleep(0.05)
    return not any(map(lives, pids))


def test_an_exception_in_one_world_does_not_desynchronize_the_other(world: MetaworldWorld) -> None:
    expected, _ = world.reset_to([spec("reach-v3", 1), spec("push-v3", 3)], [0, 1])
    assert world._processes is not None
    step = {"do": "step", "actions": [[0.0, 0.0, 0.0, 0.0]], "render_ended": True}
    replies = world._processes.ask({0: {"do": "begin", "spec": asdict(spec("no-such-task", 1))}, 1: step})
    assert "begin raised KeyError: 'no-such-task'" in replies[0]["broken"] and len(replies[1]["states"]) == 1
    again, _ = world.reset_to([spec("push-v3", 3)], [1])
    assert (again["state"][1] == expected["state"][1]).all()


def test_a_killed_process_raises_an_error_naming_its_world_and_close_ends_the_others() -> None:
    world = MetaworldWorld(2)
    world.reset_to([spec("reach-v3", 1), spec("reach-v3", 2)], [0, 1])
    assert world._processes is not None
    pids = processes_of(world._processes._host.pid)
    assert len(pids) == 4
    os.kill(pids[3], signal.SIGKILL)
    with pytest.raises(RuntimeError, match="the process of Meta-World's world 1 died"):
        world.step_chunk(np.zeros((2, 1, 4)))
    world.close()
    assert wait_until_gone(pids)


def test_no_process_remains_after_any_of_them_is_killed() -> None:
    script = """
import time
from envs.suites.metaworld.world import MetaworldWorld
from envs.types import EpisodeSpec
world = MetaworldWorld(1)
world.reset_to([EpisodeSpec(suite="metaworld", task="reach-v3", seed=1)], [0])
print(world._processes._host.pid, flush=True)
time.sleep(60)
"""
    root = Path(__file__).parents[3]
    with subprocess.Popen([sys.executable, "-c", script], cwd=root, stdout=subprocess.PIPE, text=True) as victim:
        assert victim.stdout is not None
        pids = processes_of(int(victim.stdout.readline()))
        assert len(pids) == 3
        victim.kill()
    assert wait_until_gone(pids)


def test_worlds_have_names_and_splits_as_task_groups() -> None:
    with closing(make_world("metaworld-mt10", 3)) as world:
        assert world.num_envs == 3 and len(world.tasks) == 10
        assert world.task_groups["medium"] == ("peg-insert-side-v3",)
        assert set(world.task_groups) == {"easy", "medium", "hard"}
    with pytest.raises(ValueError, match="runs on device 'cpu' alone, got 'warp'"):
        make_world("metaworld-mt50", device="warp")
