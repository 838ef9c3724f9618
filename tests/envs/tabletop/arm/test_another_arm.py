"""An arm is data: one that is not the suite's own does its tasks, and nothing but its file knows the suite's own."""

from __future__ import annotations

import ast
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import mujoco
import numpy as np
import pytest
from six_axis import SIX_AXIS
from tables import spec

from envs.tabletop.arm.panda import PANDA
from envs.tabletop.scene.scene import build_scene
from envs.tabletop.world import TabletopConfig, TabletopWorld

ROOT = Path(__file__).parents[4]
BLIND = TabletopConfig(arm=SIX_AXIS, cameras=())


@pytest.mark.parametrize("task", ["reach", "press_button", "lift", "stack", "open_drawer"])
def test_the_scripted_expert_succeeds_with_another_arm(task: str) -> None:
    with closing(TabletopWorld(5, BLIND)) as world:
        world.reset_to([spec(task, seed) for seed in range(5)], range(5))
        low, high = (np.array([getattr(joint, name) for joint in SIX_AXIS.joints]) for name in ("low_rad", "high_rad"))
        results = [world.step_chunk(world.expert_action()[:, None]) for _ in range(world.task_of(spec(task)).max_steps)]
        assert results[-1].outcome == ("success",) * 5
    joints = np.concatenate([result.states[:, 0, : len(low)] for result in results])
    assert ((joints > low) & (joints < high)).all()


def test_the_worlds_spec_has_the_arms_limits_and_both_cameras_show_it() -> None:
    with closing(TabletopWorld(1, TabletopConfig(arm=SIX_AXIS))) as world, closing(TabletopWorld(1)) as usual:
        shown = world.world_spec
        assert shown.state.names[:6] == tuple(f"{joint.name}_pos" for joint in SIX_AXIS.joints)
        assert shown.state.position == (6, 7, 8)
        assert shown.state.low[:6] == tuple(joint.low_rad - 0.1 for joint in SIX_AXIS.joints)
        assert shown.state.high[-1] == pytest.approx(0.08)
        assert shown.action.units[0] == "0.03 m/step" and shown.action.units[3] == "0.15 rad/step"
        assert any("state" in line for line in usual.world_spec.differences(shown))
        observation, _ = world.reset_to([spec("reach")], [0])
        other, _ = usual.reset_to([spec("reach")], [0])
        state = observation["state"][0]
        np.testing.assert_allclose(state[6:9], other["state"][0][7:10], atol=0.05)
        np.testing.assert_allclose(state[9:15], (1, 0, 0, 0, -1, 0), atol=0.1)
        assert world.episode(0).object_xy_m.tolist() == usual.episode(0).object_xy_m.tolist(), "the same table"
        for camera in ("front", "wrist"):
            assert (observation["frames"][camera] != other["frames"][camera]).mean() > 0.02


def test_an_action_moves_it_by_its_scale() -> None:
    with closing(TabletopWorld(1, BLIND)) as world:
        world.reset_to([spec("turn_dial")], [0])
        action = np.zeros((1, 1, 7), np.float32)
        action[0, 0, 1] = 0.5
        y_m = [world.step_chunk(action).states[0, -1, 7] for _ in range(6)]
    assert (y_m[5] - y_m[1]) / 4 == pytest.approx(0.5 * 0.03, abs=0.003)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"finger_travel_m": 0.025}, "opens by 0.05 m; to release the table's objects it must open by more than 0.06"),
        ({"workspace_high_m": (0.5, 0.28, 0.4)}, r"is 0.3 .. 0.5 m in x, and the table's objects are at 0.37 .. 0.6"),
        (
            {"fingers": SIX_AXIS.fingers[::-1]},
            "six_wrist_yaw, six_right_jaw, .*list them in the model's order",
        ),
        ({"joints": PANDA.joints}, "lists joint1, joint2, .* and its model has the joints six_waist"),
    ],
)
def test_an_arm_that_does_not_fit_the_table_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_scene(replace(SIX_AXIS, **changes))


def test_an_arm_whose_model_has_settings_that_would_apply_to_the_table_is_rejected() -> None:
    def model() -> mujoco.MjSpec:
        settings = '<option gravity="0 0 0"/><default><geom friction="2 0 0"/></default>'
        return mujoco.MjSpec.from_string(f'<mujoco>{settings}<worldbody><geom size="1"/></worldbody></mujoco>')

    with pytest.raises(ValueError, match="sets the default geom, the option gravity, which would apply to the table"):
        build_scene(replace(SIX_AXIS, model=model))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fingers": ()}, "'six_axis' has joints .* and fingers \\(\\), expected both"),
        ({"position_scale_m": 0.0}, "position_scale_m of arm 'six_axis' is 0.0, expected a number above 0"),
        ({"workspace_low_m": (0.3, 0.3, 0.0)}, "the workspace of arm 'six_axis' is empty"),
    ],
)
def test_an_invalid_arm_is_rejected(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SIX_AXIS, **changes)
    with pytest.raises(ValueError, match=r"'six_waist' has its home at 9.0 rad, expected within -2.6 .. 2.6"):
        replace(SIX_AXIS.joints[0], home_rad=9.0)


def test_only_its_own_file_has_the_joints_and_numbers_of_the_suites_arm() -> None:
    names = {PANDA.base_body, *(joint.name for joint in PANDA.joints), *PANDA.fingers}
    numbers = {*PANDA.workspace_low_m[:2], *PANDA.workspace_high_m[:2]}
    for joint in PANDA.joints:
        numbers |= {joint.low_rad, joint.high_rad, joint.home_rad, joint.max_velocity_rad_s} - {0.0}
    known = {abs(number) for number in numbers} | names
    found = []
    for folder in ("envs/tabletop", "agent/robot"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            constants = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)]
            found += [f"{path.name}:{node.lineno} {node.value}" for node in constants if node.value in known]
            mentions = path.name not in ("panda.py", "world.py") and "panda" in path.read_text().lower()
            found += [f"{path.name} names the Panda"] * mentions
    assert {line.partition(":")[0] for line in found} == {"panda.py"}, found
