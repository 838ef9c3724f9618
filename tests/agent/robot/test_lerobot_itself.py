"""LeRobot's own follower arm, driven: everything of it but the motors at the end of the cable.

Skipped where lerobot isn't installed. 0.4.4 wants other versions than we do, so `pip install --no-deps lerobot==0.4.4`
and what it misses then go into a folder of their own, on PYTHONPATH for this test alone.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from line_arm import Script

from agent.robot.agent import Agent
from agent.robot.robots.lerobot_robot import LeRobotRobot
from agent.robot.types import Limits
from benchmarks.simulated import SimulatedClock, SimulatedInference

so_follower = pytest.importorskip("lerobot.robots.so_follower", reason="lerobot is not installed")


class Motors:
    """The follower's bus; its motors reach their targets at once."""

    is_connected = False
    is_calibrated = True

    def __init__(self, names: Mapping[str, Any]) -> None:
        self.motors = names
        self.positions = dict.fromkeys(names, 0.0)
        self.written: list[dict[str, float]] = []

    def connect(self) -> None:
        self.is_connected = True

    def disconnect(self, disable_torque: bool = True) -> None:
        del disable_torque
        self.is_connected = False

    @contextmanager
    def torque_disabled(self) -> Generator[None]:
        yield

    def configure_motors(self) -> None: ...

    def write(self, register: str, motor: str, value: int) -> None: ...

    def sync_read(self, register: str) -> dict[str, float]:
        assert register == "Present_Position"
        return dict(self.positions)

    def sync_write(self, register: str, values: Mapping[str, float]) -> None:
        assert register == "Goal_Position"
        self.written.append(dict(values))
        self.positions |= values


def test_lerobots_so101_is_driven_within_both_limits(tmp_path: Path) -> None:
    """A target of 45 degrees for shoulder_pan, limited to 80 per second by us and to 5 per step by LeRobot."""
    config = so_follower.SO101FollowerConfig(
        port="none", id="test", calibration_dir=tmp_path, max_relative_target=5.0, use_degrees=True
    )
    arm = so_follower.SO101Follower(config)
    arm.bus = motors = Motors(arm.bus.motors)
    ranges = dict.fromkeys(arm.action_features, (-90.0, 90.0)) | {"gripper.pos": (0.0, 100.0)}
    clock = SimulatedClock()
    robot = LeRobotRobot(
        arm, ranges=ranges, control_dt_s=0.1, limits={"shoulder_pan.pos": Limits(max_velocity=80.0)}, clock=clock
    )
    target = np.full((1, 8, 6), 0.5, np.float32)
    target[..., 5] = -1.0  # gripper closed
    make_inference = partial(SimulatedInference, clock=clock, latency_s=lambda n: 0.0)
    outcome = Agent(Script(lambda n, x: target), robot, clock=clock, make_inference=make_inference).run("wave", 0.5)
    assert robot.spec.name == "so_follower"
    assert outcome.num_steps == 5
    sent = [written["shoulder_pan"] for written in motors.written]
    assert sent == pytest.approx([5.0, 10.0, 15.0, 20.0, 25.0, 25.0]), "ours allows 8, LeRobot 5; then it stops there"
    assert [written["gripper"] for written in motors.written] == pytest.approx([0.0] * 6)
    assert not arm.is_connected
