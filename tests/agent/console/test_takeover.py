"""Takeover against hand-computed numbers: the tabletop's axes move 4 cm, turn 0.2 rad and open 8 cm per action."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from agent.console.stage import tool_axes
from agent.console.takeover import Takeover
from agent.robot.robots.tabletop import axes_of
from agent.robot.types import Reading, RobotSpec
from envs.tabletop.arm.control import action_spec
from envs.tabletop.arm.panda import PANDA
from envs.tabletop.episodes.reading import state_spec
from envs.tabletop.scene.labels import LOCALIZATION
from envs.types import WorldSpec

STATE = state_spec(PANDA)
WORLD = WorldSpec(cameras=(), state=STATE, action=action_spec(PANDA), localization=LOCALIZATION, control_dt_s=0.1)
SPEC = RobotSpec(name="tabletop", world=WORLD, axes=axes_of(PANDA))
X, ROT_Z, GRIPPER = 0, 5, 6
REST = np.array([0, 0, 0, 0, 0, 0, 0.6], np.float32)
"""The gripper holds something."""


def at(x_m: float = 0.5, y_m: float = 0.0, z_m: float = 0.2) -> Reading:
    state = np.zeros(STATE.size, np.float32)
    state[[STATE.names.index(f"tcp_{name}") for name in "xyz"]] = x_m, y_m, z_m
    state[STATE.names.index("gripper_opening")] = 0.045
    return Reading(frames={}, state=state, time_s=0.0)


def test_a_takeover_begins_at_rest() -> None:
    takeover = Takeover(SPEC)
    assert takeover.action(at(), REST) is None
    takeover.take()
    action = takeover.action(at(), REST)
    assert action is not None and action.dtype == np.float32
    assert action == pytest.approx(REST, abs=1e-6), "the grip does not loosen to what the fingers show"
    takeover.give_back()
    assert takeover.action(at(), REST) is None


def test_the_arm_moves_to_its_target_at_full_action_range() -> None:
    takeover = Takeover(SPEC)
    takeover.take()
    takeover.action(at(), REST)
    takeover.aim(X, 0.55)
    assert takeover.action(at(0.50), REST) == pytest.approx([1.0, *REST[1:]], abs=1e-6)
    assert takeover.action(at(0.54), REST) == pytest.approx([0.25, *REST[1:]], abs=1e-5)
    assert takeover.action(at(0.56), REST) == pytest.approx([-0.25, *REST[1:]], abs=1e-5)


def test_a_nudge_of_an_unmeasured_axis_is_executed_once() -> None:
    takeover = Takeover(SPEC)
    takeover.take()
    takeover.action(at(), REST)
    takeover.nudge(ROT_Z, 0.5)
    done = [takeover.action(at(), REST) for _ in range(3)]
    assert [float(action[ROT_Z]) for action in done if action is not None] == pytest.approx([0.5, 0.0, 0.0])


def test_a_held_key_accumulates_at_most_one_action() -> None:
    takeover = Takeover(SPEC)
    takeover.take()
    takeover.action(at(), REST)
    for _ in range(50):
        takeover.nudge(X, 0.5)
        takeover.nudge(ROT_Z, -0.5)
    targets = takeover.targets
    assert targets is not None and targets[X] == pytest.approx(0.54) and targets[ROT_Z] == pytest.approx(-0.2)
    takeover.nudge(X, -0.5)
    assert takeover.action(at(), REST) == pytest.approx([0.5, 0, 0, 0, 0, -1.0, 0.6], abs=1e-5)


def test_the_gripper_follows_its_command() -> None:
    takeover = Takeover(SPEC)
    takeover.command(GRIPPER, 1.0)
    takeover.take()
    takeover.action(at(), REST)
    takeover.command(GRIPPER, -1.0)
    action = takeover.action(at(), REST)
    assert action is not None and action[GRIPPER] == -1.0


def test_a_second_takeover_begins_at_rest() -> None:
    takeover = Takeover(SPEC)
    takeover.take()
    takeover.action(at(), REST)
    takeover.aim(X, 0.7)
    takeover.give_back()
    takeover.nudge(X, 1.0)
    takeover.take()
    assert takeover.targets is None
    assert takeover.action(at(0.6), REST) == pytest.approx(REST, abs=1e-6)


def test_the_tool_axes_are_found_by_the_state_spec() -> None:
    assert tool_axes(SPEC) == (0, 1, 2)
    renamed = replace(STATE, names=tuple(name.replace("tcp_", "hand_") for name in STATE.names))
    axes = tuple(replace(axis, state=axis.state and axis.state.replace("tcp_", "hand_")) for axis in SPEC.axes)
    named = replace(SPEC, world=replace(WORLD, state=renamed), axes=axes)
    assert tool_axes(named) == (0, 1, 2)
    unsaid = replace(SPEC, world=replace(WORLD, state=replace(STATE, position=())))
    with pytest.raises(ValueError, match="no axes that move the hand along x, y and z; its axes show: tcp_x, tcp_y"):
        tool_axes(unsaid)
