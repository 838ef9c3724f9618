"""What is known of LIBERO without running it: tasks, seeds, and where a point appears in a frame."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from importlib.metadata import version

import numpy as np
import pytest

from agent.runs.checks import check_episodes
from agent.runs.seeds import FIRST_EVALUATION_SEED, FIRST_SELECTION_SEED
from agent.serve.foreign.adapter import Adapter
from agent.serve.foreign.config import AdapterConfig
from envs.errors import UserError
from envs.suites.libero import tasks
from envs.suites.libero.sensor import ACTION, FAST, FIXED_CAMERAS, PUBLISHED, PUBLISHED_128, STATE, Sensor
from envs.suites.libero.world import ANY_MUJOCO_VARIABLE, INTERPRETER, WORLDS, LiberoConfig, LiberoWorld
from envs.types import EpisodeSpec, Observation
from vla_model.sizes import pointing_columns


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[LiberoWorld]:
    """A world whose processes are never started."""
    monkeypatch.setenv(INTERPRETER.variable, sys.executable)
    with closing(LiberoWorld(1, WORLDS["libero"])) as world:
        yield world


def test_the_four_suites_and_libero_90_have_130_tasks_of_different_names() -> None:
    assert {suite: len(of) for suite, of in tasks.SUITES.items()} == {
        "spatial": 10,
        "object": 10,
        "goal": 10,
        "10": 10,
        "90": 90,
    }
    names = [task for of in tasks.SUITES.values() for task in of]
    assert len(set(names)) == 130
    assert {tasks.variations_of(task) for task in tasks.SUITES["90"]} == {("train",)}
    assert tasks.folder_of("turn_on_the_stove", "swap") == "libero_goal_swap"


def test_the_first_evaluation_seeds_are_the_official_states_and_no_other_seed_is() -> None:
    assert tasks.FIRST_OFFICIAL_SEED == FIRST_EVALUATION_SEED
    assert [tasks.official_index(FIRST_EVALUATION_SEED + i) for i in (0, 49, 50)] == [0, 49, None]
    assert tasks.official_index(0) is None and tasks.official_index(FIRST_SELECTION_SEED) is None


def test_a_world_has_the_tasks_and_horizons_of_its_suites(world: LiberoWorld) -> None:
    assert len(world.tasks) == 40 and list(world.task_groups) == ["spatial", "object", "goal", "10"]
    assert tasks.HORIZONS == {"spatial": 220, "object": 280, "goal": 300, "10": 520, "90": 400}
    assert {name for name in WORLDS if "published" not in name} == {
        "libero",
        *(f"libero-{suite}" for suite in tasks.SUITES),
    }


def test_episodes_of_one_task_run_together_in_the_order_of_their_seeds(world: LiberoWorld) -> None:
    first, second = world.tasks[0], world.tasks[1]
    given = [
        EpisodeSpec(suite="libero", task=task, seed=seed, variation=variation)
        for seed in (1, 2)
        for task in (second, first)
        for variation in ("train", "swap")
    ]
    ordered = [(spec.task, spec.variation, spec.seed) for spec in world.in_order(given)]
    assert ordered == [(t, v, s) for t in (first, second) for v in ("swap", "train") for s in (1, 2)]


def test_wide_episodes_of_one_scene_run_together(world: LiberoWorld) -> None:
    task = world.tasks[0]
    given = [EpisodeSpec(suite="libero", task=task, seed=s, variation="wide") for s in (13, 1, 11, 0)]
    assert [spec.seed for spec in world.in_order(given)] == [1, 0, 13, 11]
    assert "wide" in tasks.variations_of(task) and "wide" not in tasks.variations_of(tasks.SUITES["90"][0])


def test_unknown_tasks_and_variations_are_refused_with_those_that_exist(world: LiberoWorld) -> None:
    def spec(task: str, variation: str) -> EpisodeSpec:
        return EpisodeSpec(suite="libero", task=task, seed=0, variation=variation)

    with pytest.raises(ValueError, match="task 'fly' does not exist in libero; tasks: pick_up_the_black_bowl"):
        world.check_spec(spec("fly", "train"))
    with pytest.raises(
        ValueError, match="variation 'dark' does not exist; variations: train, lan, object, swap, task, wide, restyled"
    ):
        world.check_spec(spec("turn_on_the_stove", "dark"))
    with pytest.raises(ValueError, match="variation 'env' of LIBERO-PRO has neither tasks nor initial"):
        world.check_spec(spec("turn_on_the_stove", "env"))
    with pytest.raises(
        ValueError, match=r"variation 'env' of LIBERO-PRO has neither tasks nor .* There are: train, lan"
    ):
        check_episodes(world, (), ("train", "env"))
    world.check_spec(spec("turn_on_the_stove", "task"))


def test_the_error_for_a_missing_interpreter_gives_the_command_that_builds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(INTERPRETER.variable, "/nowhere/python")
    with pytest.raises(ValueError, match=r"LLAMARM_LIBERO_PYTHON names /nowhere/python.*make libero"):
        LiberoWorld(1)


@pytest.mark.parametrize(
    ("python", "message"),
    [
        (sys.executable, "cannot run LIBERO: No module named '(robosuite|libero)'; build it with: make libero"),
        ("/bin/true", "LIBERO did not start in /bin/true, which must be Python 3.10 or newer"),
    ],
)
def test_an_interpreter_without_libero_is_refused_by_name(
    python: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(INTERPRETER.variable, python)
    with closing(LiberoWorld(1)) as world, pytest.raises(UserError, match=message):
        world.reset_to([world.example_spec(0)], [0])
    monkeypatch.setenv(INTERPRETER.variable, "/bin/false")
    monkeypatch.setenv(ANY_MUJOCO_VARIABLE, "1")
    with pytest.raises(UserError, match="/bin/false cannot run LIBERO: it has no mujoco; build it with: make libero"):
        LiberoWorld(1)


def test_another_mujoco_is_noted_in_every_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(INTERPRETER.variable, sys.executable)
    monkeypatch.setenv(ANY_MUJOCO_VARIABLE, "1")
    with closing(LiberoWorld(1)) as world:
        assert world.notes == {
            "mujoco": f"{version('mujoco')}, not 3.3.2: other physics and frames than published results"
        }


def test_a_sensor_round_trips_through_json_and_labels_four_things_in_both_cameras() -> None:
    for sensor in (FAST, PUBLISHED_128):
        assert Sensor.of(asdict(sensor)) == sensor
    spec = PUBLISHED.world_spec(("spatial",))
    assert [(camera.name, camera.height) for camera in spec.cameras] == [("front", 256), ("wrist", 256)]
    assert pointing_columns(spec)["wrist"] == [[20, 21], [22, 23], [24, 25], [26, 27]]
    assert (STATE.size, ACTION.size) == (8, 7) and ACTION.is_gripper.tolist() == [False] * 6 + [True]


def test_a_pixel_is_the_mean_of_those_that_are_rendered_for_it() -> None:
    sensor = Sensor(size_px=2, rendered_per_px=2, quality=PUBLISHED.quality)
    rendered = np.zeros((4, 4, 3), np.uint8)
    rendered[:2, :2] = [[[0, 40, 255], [0, 41, 255]], [[100, 42, 255], [101, 43, 255]]]
    assert sensor.reduced(rendered).tolist() == [[[50, 42, 255], [0, 0, 0]], [[0, 0, 0], [0, 0, 0]]]
    assert PUBLISHED_128.world_spec(("goal",)) == FAST.world_spec(("goal",)), "the same policies fit"


def test_openpi_s_libero_client_sends_the_world_s_cameras_and_state_and_gets_its_actions() -> None:
    adapter = Adapter(AdapterConfig(preset="libero"), PUBLISHED.world_spec(("spatial",)))
    frames = {name: np.full((1, 256, 256, 3), value, np.uint8) for name, value in (("front", 1), ("wrist", 2))}
    observation = Observation(frames=frames, state=np.arange(8, dtype=np.float32)[None], instruction=("turn",))
    request = adapter.request(observation, 0, "turn")
    assert request["observation/image"].shape == (224, 224, 3) and request["observation/image"].max() == 1
    assert request["observation/wrist_image"].max() == 2
    assert request["observation/state"].tolist() == list(range(8)) and request["prompt"] == "turn"
    answer = np.linspace(-1, 1, 35, dtype=np.float32).reshape(5, 7)
    assert (adapter.actions(answer) == answer).all(), "their gripper closes at 1, as ours"


def test_the_fixed_camera_is_calibrated_where_it_stands_in_one_place() -> None:
    def calibrated(*suites: str) -> list[str]:
        return [camera.name for camera in FAST.world_spec(suites).calibrated_cameras]

    assert calibrated("spatial", "goal") == calibrated("object") == ["front"]
    assert calibrated("spatial", "object") == calibrated("10") == calibrated("90") == []


def test_a_frame_is_upright_and_mirrored() -> None:
    (pos_m, down), ahead_m = FIXED_CAMERAS["tabletop"], 1.5
    camera = FAST.world_spec(("goal",)).cameras[0]
    ahead = np.array([-math.sqrt(1 - down**2), 0.0, -down])  # towards the robot and down
    middle = np.array(pos_m) + ahead_m * ahead
    half_frame_m = ahead_m * math.tan(math.radians(22.5))
    to_the_side, higher = np.array([0.0, half_frame_m, 0.0]), np.array([0.0, 0.0, 0.1])
    assert camera.project(middle) == pytest.approx([0.0, 0.0], abs=1e-6)
    assert camera.project(middle + to_the_side) == pytest.approx([-1.0, 0.0], abs=1e-6)
    assert camera.project(middle + higher)[1] < 0.0


def test_a_config_names_its_suites() -> None:
    with pytest.raises(UserError, match="LIBERO has no suite 'long'; suites: spatial, object, goal, 10, 90"):
        LiberoWorld(1, LiberoConfig(suites=("goal", "long")))
    assert WORLDS["libero-10-published"] == LiberoConfig(suites=("10",), sensor=PUBLISHED, published_sentences=True)
    assert WORLDS["libero-10-published-128"] == LiberoConfig(suites=("10",), sensor=PUBLISHED_128)
