"""What is known of Meta-World without running it: sentences, splits, and where a point appears in a view."""

from __future__ import annotations

import math
import sys
from collections import Counter
from dataclasses import asdict

import numpy as np
import pytest

from envs.errors import UserError
from envs.suites.metaworld.sensor import CAMERA_AXES, CAMERA_POS_M, FAST, PUBLISHED, Sensor, View
from envs.suites.metaworld.tasks import MT10, SPLITS, TASKS, VARIATIONS, instruction
from envs.suites.metaworld.world import INTERPRETER, MetaworldConfig, MetaworldWorld
from vla_model.sizes import pointing_columns


def test_every_task_is_in_one_split_of_the_published_sizes() -> None:
    assert {name: len(tasks) for name, tasks in SPLITS.items()} == {"easy": 28, "medium": 11, "hard": 6, "very hard": 5}
    assert sorted(task for tasks in SPLITS.values() for task in tasks) == sorted(TASKS)
    assert len(TASKS) == 50 and len(MT10) == 10 and set(MT10) <= set(TASKS)


def test_push_and_push_back_share_the_published_instruction_but_not_the_distinct_one() -> None:
    said = Counter(instruction(task, "train") for task in TASKS)
    assert [sentence for sentence, count in said.items() if count > 1] == ["Push the puck to a goal"]
    assert len({instruction(task, "distinct") for task in TASKS}) == 50
    assert set(VARIATIONS) == {"train", "distinct"}


def test_a_crop_enlarges_a_part_of_the_whole_frame() -> None:
    edge = math.tan(math.radians(30))
    in_camera = np.array([(0.0, 0.0, -2.0), (-edge, 0.0, -1.0), (0.0, edge / 2, -1.0), (0.0, 0.0, 1.0)])
    points_m = CAMERA_POS_M + in_camera @ np.transpose(CAMERA_AXES)
    whole = View(whole_px=480, width_px=480, height_px=480).camera.project(points_m)
    assert whole[:3] == pytest.approx(np.array([(0, 0), (1, 0), (0, 0.5)]), abs=1e-6)
    assert whole[3].tolist() == [2.0, 2.0], "behind the camera"
    window = View(whole_px=200, left_px=50, top_px=100, width_px=100, height_px=100).camera.project(points_m)
    # Pixels 100, 200 and 100 of the whole frame's width; 100, 100 and 150 of its height.
    assert window[:3] == pytest.approx(np.array([(0, -1), (2, -1), (0, 0)]), abs=1e-6)


def test_a_sensor_round_trips_through_json_and_labels_three_things_in_every_view() -> None:
    assert Sensor.of(asdict(FAST)) == FAST
    assert PUBLISHED.cameras[0].height == PUBLISHED.cameras[0].width == 480 and PUBLISHED.quality.shadows
    columns = pointing_columns(FAST.world_spec)
    assert columns == {"corner2": [[9, 10], [11, 12], [13, 14]]}


def test_the_error_for_a_missing_interpreter_gives_the_command_that_builds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(INTERPRETER.variable, "/nowhere/python")
    with pytest.raises(ValueError, match=r"LLAMARM_METAWORLD_PYTHON names /nowhere/python.*make metaworld"):
        MetaworldWorld(1)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            MetaworldConfig(tasks=("reach-v3", "fly-v3")),
            "task 'fly-v3' does not exist in Meta-World; tasks: assembly-v3",
        ),
        (MetaworldConfig(max_steps=501), "max_steps must be 1 to 500, got 501"),
        (MetaworldConfig(tasks=()), "suite 'metaworld' has no task"),
    ],
)
def test_a_config_that_the_suite_cannot_run_is_refused(
    config: MetaworldConfig, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(INTERPRETER.variable, sys.executable)
    with pytest.raises(UserError, match=message):
        MetaworldWorld(1, config)
