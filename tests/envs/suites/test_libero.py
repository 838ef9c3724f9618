"""LIBERO's worlds in their own interpreter. Skipped where `make libero` has not built it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from envs.simulation.gl import choose_backend
from envs.suites.libero.sensor import PUBLISHED, PUBLISHED_128, THINGS
from envs.suites.libero.world import INTERPRETER, WORLDS, LiberoConfig, LiberoWorld
from envs.types import EpisodeSpec

try:
    PYTHON = INTERPRETER.python()
except ValueError as error:
    pytest.skip(str(error), allow_module_level=True)

ROOT = Path(__file__).parents[3]
STOVE = "put_the_bowl_on_the_stove"
SOUP = "pick_up_the_alphabet_soup_and_place_it_in_the_basket"


def spec(task: str, seed: int, variation: str = "train") -> EpisodeSpec:
    return EpisodeSpec(suite="libero", task=task, seed=seed, variation=variation)


@pytest.fixture(scope="module")
def world() -> Iterator[LiberoWorld]:
    with closing(LiberoWorld(1, LiberoConfig(suites=("goal",)))) as world:
        yield world


def test_a_spec_gives_the_same_first_observation_after_other_episodes_and_in_another_process(
    world: LiberoWorld,
) -> None:
    first, _ = world.reset_to([spec(STOVE, 3)], [0])
    world.step_chunk(np.ones((1, 8, 7)))
    official, _ = world.reset_to([spec(STOVE, 1_000_000)], [0])
    assert (official["state"] != first["state"]).any()
    world.reset_to([spec("turn_on_the_stove", 4, "task")], [0])
    again, _ = world.reset_to([spec(STOVE, 3)], [0])
    with closing(LiberoWorld(1, LiberoConfig(suites=("goal",)))) as other:
        elsewhere, _ = other.reset_to([spec(STOVE, 3)], [0])
    for seen in (again, elsewhere):
        assert (seen["state"] == first["state"]).all()
        for name, frames in first["frames"].items():
            assert frames.any() and (seen["frames"][name] == frames).all()


def test_the_sentence_is_the_bddl_file_s_and_not_the_file_name_s(world: LiberoWorld) -> None:
    said = {
        variation: world.reset_to([spec("turn_on_the_stove", 0, variation)], [0])[0]["instruction"][0]
        for variation in ("train", "lan", "task")
    }
    assert said == {"train": "turn on the stove", "lan": "switch on the stove", "task": "turn off the stove"}


def test_published_worlds_say_what_published_evaluations_say() -> None:
    task = "open_the_middle_drawer_of_the_cabinet"  # "open the middle layer of the drawer" in its BDDL file
    with closing(LiberoWorld(1, WORLDS["libero-goal-published"])) as world:
        said = {
            variation: world.reset_to([spec(task, 0, variation)], [0])[0]["instruction"][0]
            for variation in ("train", "task")
        }
    assert said["train"] == "open the middle drawer of the cabinet"
    assert said["task"] == "open the bottom drawer of the cabinet", "only the BDDL file names the other goal"


def test_the_published_sentence_of_every_task_is_the_suite_s() -> None:
    script = """
import json
from libero.libero.benchmark import grab_language_from_filename
from envs.suites.libero.tasks import SUITES, published_sentence
tasks = [task for suite in SUITES.values() for task in suite]
print(json.dumps([t for t in tasks if published_sentence(t, "swap") != grab_language_from_filename(f"{t}.bddl")]))
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    out = subprocess.run(
        [str(PYTHON), "-c", script], env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert json.loads(out.splitlines()[-1]) == []


def test_labels_are_where_the_calibrated_camera_shows_the_things(world: LiberoWorld) -> None:
    _, info = world.reset_to([spec(STOVE, 7)], [0])
    label = info["localization"][0]
    things, places = label[:12].reshape(4, 3), label[12:20].reshape(4, 2)
    assert places == pytest.approx(world.world_spec.cameras[0].project(things), abs=1e-4)
    assert (things[:2] == things[2:]).all(), f"{THINGS} repeat where the goal has one predicate"
    assert things[0, 2] == pytest.approx(0.9, abs=0.03) and np.abs(places).max() < 1.0


def test_an_episode_ends_at_its_suite_s_horizon(world: LiberoWorld) -> None:
    world.reset_to([spec(STOVE, 1_000_001)], [0])
    idle = np.tile(np.array([0, 0, 0, 0, 0, 0, -1], np.float32), (1, 310, 1))
    result = world.step_chunk(idle, ended_frames=False)
    assert result.num_steps.tolist() == [300] and result.truncated.all() and not result.success.any()
    assert result.reward.sum() == 0.0


REFERENCE = """
import sys
import numpy as np
from envs.suites.libero.scene import get_libero_path, load_initial_states
from libero.libero.envs import OffScreenRenderEnv
task, out = sys.argv[1:]
bddl = f"{get_libero_path('bddl_files')}/libero_object/{task}.bddl"
env = OffScreenRenderEnv(bddl_file_name=bddl, camera_heights=256, camera_widths=256)
env.seed(0)
env.reset()
env.set_init_state(load_initial_states(f"{get_libero_path('init_states')}/libero_object/{task}.pruned_init")[0])
for _ in range(10):
    observation, *_ = env.step([0.0] * 6 + [-1.0])
frames = {camera: observation[f"{camera}_image"][::-1, ::-1] for camera in ("agentview", "robot0_eye_in_hand")}
np.savez(out, **frames, position=observation["robot0_eef_pos"], fingers=observation["robot0_gripper_qpos"])
"""


def test_the_published_sensor_gives_the_frames_of_the_suite_s_own_renderer(tmp_path: Path) -> None:
    environment = {**os.environ, "MUJOCO_GL": choose_backend(), "PYTHONPATH": str(ROOT)}
    file = tmp_path / "reference.npz"
    with closing(LiberoWorld(1, LiberoConfig(suites=("object",), sensor=PUBLISHED))) as world:
        seen, _ = world.reset_to([spec(SOUP, 1_000_000)], [0])
        subprocess.run([str(PYTHON), "-c", REFERENCE, SOUP, str(file)], env=environment, check=True)
    with closing(LiberoWorld(1, LiberoConfig(suites=("object",), sensor=PUBLISHED_128))) as world:
        smaller, _ = world.reset_to([spec(SOUP, 1_000_000)], [0])
    for name, frames in seen["frames"].items():
        assert smaller["frames"][name][0].tolist() == PUBLISHED_128.reduced(frames[0]).tolist()
    reference = np.load(file)
    for name, camera in (("front", "agentview"), ("wrist", "robot0_eye_in_hand")):
        assert np.abs(seen["frames"][name][0].astype(int) - reference[camera]).mean() < 0.5
    assert seen["state"][0, :3] == pytest.approx(reference["position"], abs=1e-4)
    assert seen["state"][0, 6:] == pytest.approx(reference["fingers"], abs=1e-4)


def test_another_mujoco_is_refused_with_what_it_would_change() -> None:
    script = """
import json, sys
from envs.suites.libero import episodes
episodes.MUJOCO = "2.3.7"
try:
    episodes.Episodes.prepare({"any_mujoco": False})
except ValueError as error:
    print(json.dumps(str(error)))
episodes.Episodes.prepare({"any_mujoco": True})
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    out = subprocess.run(
        [str(PYTHON), "-c", script], env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert "expected 2.3.7: make libero" in json.loads(out.splitlines()[-1])
