"""A fake arm with the interface of LeRobot's Robot class, driven."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import inf
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from line_arm import Script
from numpy.typing import NDArray

from agent.robot.agent import Agent
from agent.robot.robots.lerobot_robot import LeRobotRobot
from agent.robot.types import Limits
from benchmarks.simulated import SimulatedClock, SimulatedInference
from envs.types import CameraSpec

RANGES = {"shoulder.pos": (-90.0, 90.0), "gripper.pos": (0.0, 100.0)}


class FakeFollower:
    """As lerobot/robots/robot.py (0.4.4) has it: dictionaries by name, and what was really sent as the result.

    It reaches every target at once, but moves no further than `max_relative_target`, as LeRobot's followers do.
    """

    name = "fake_follower"
    observation_features: dict[str, Any] = {"shoulder.pos": float, "gripper.pos": float, "top": (48, 64, 3)}  # noqa: RUF012
    action_features: dict[str, Any] = {"shoulder.pos": float, "gripper.pos": float}  # noqa: RUF012

    def __init__(self, max_relative_target: float = 1e9) -> None:
        self.is_connected = False
        self.is_calibrated = True
        self.max_relative_target = max_relative_target
        self.positions = {"shoulder.pos": 10.0, "gripper.pos": 50.0}
        self.sent: list[dict[str, float]] = []

    def connect(self, calibrate: bool = True) -> None:
        del calibrate
        if self.is_connected:
            raise ConnectionError("already connected")
        self.is_connected = True

    def get_observation(self) -> dict[str, Any]:
        self._check()
        return {**self.positions, "top": np.full((48, 64, 3), 9, np.uint8)}

    def send_action(self, action: dict[str, Any]) -> dict[str, Any]:
        self._check()
        reach = self.max_relative_target
        clipped = {
            k: float(np.clip(v, self.positions[k] - reach, self.positions[k] + reach)) for k, v in action.items()
        }
        self.sent.append(clipped)
        self.positions |= clipped
        return clipped

    def disconnect(self) -> None:
        self._check()
        self.is_connected = False

    def _check(self) -> None:
        if not self.is_connected:
            raise ConnectionError("FakeFollower is not connected")


class Targets(Script):
    """Always the same two targets."""

    def __init__(self, shoulder: float, gripper: float) -> None:
        super().__init__(lambda n, x: np.tile(np.array([shoulder, gripper], np.float32), (1, 8, 1)))


def drive(arm: FakeFollower, policy: Script, seconds: float, limits: dict[str, Limits] | None = None) -> Any:
    clock = SimulatedClock()
    robot = LeRobotRobot(
        arm,
        ranges=RANGES,
        control_dt_s=0.1,
        cameras={"top": CameraSpec(name="front", height=12, width=16)},
        limits=limits,
        clock=clock,
    )
    make_inference = partial(SimulatedInference, clock=clock, latency_s=lambda n: 0.0)
    return Agent(policy, robot, clock=clock, make_inference=make_inference).run("wave", seconds)


def test_actions_are_scaled_to_the_ranges_and_the_arm_stays_in_place_at_the_end() -> None:
    arm = FakeFollower()
    outcome = drive(arm, Targets(0.5, -1.0), 0.5)
    assert arm.sent[:5] == [{"shoulder.pos": 45.0, "gripper.pos": 0.0}] * 5
    assert arm.sent[5] == {"shoulder.pos": 45.0, "gripper.pos": 0.0}, "the stop: where it is"
    assert (outcome.num_steps, outcome.success, arm.is_connected) == (5, None, False)


def test_limits_hold_on_the_way_to_a_target() -> None:
    """From 10 degrees at most 50 degrees per second: 5 in each of the periods of 0.1 s, and not beyond 22."""
    arm = FakeFollower()
    outcome = drive(arm, Targets(1.0, 0.0), 0.5, {"shoulder.pos": Limits(high=22.0, max_velocity=50.0)})
    assert [round(sent["shoulder.pos"], 3) for sent in arm.sent] == [15.0, 20.0, 22.0, 22.0, 22.0, 22.0]
    assert outcome.interventions_by_reason() == {"velocity": 5, "position": 3}


def test_actions_clipped_by_the_arm_are_recorded_as_executed() -> None:
    arm = FakeFollower(max_relative_target=9.0)
    robot = LeRobotRobot(arm, ranges=RANGES, control_dt_s=0.1)
    robot.connect()
    sent = robot.act(np.array([1.0, 0.0], np.float32))
    assert sent.tolist() == pytest.approx([19.0 / 90.0, 0.0]), "10 + 9 degrees; the gripper stays at 50"


def test_frames_have_the_policys_sizes_and_names() -> None:
    arm = FakeFollower()
    spec = CameraSpec(name="front", height=12, width=16)
    robot = LeRobotRobot(arm, ranges=RANGES, control_dt_s=0.1, cameras={"top": spec})
    assert robot.spec.world.cameras == (spec,), "known before connecting"
    assert robot.spec.name == "fake_follower"
    robot.connect()
    reading = robot.observe()
    assert reading.frames["front"].shape == (12, 16, 3)
    assert reading.state.tolist() == [10.0, 50.0]


@pytest.mark.parametrize("shown", [float("nan"), float("inf"), None])
def test_a_joint_without_a_valid_position_gets_no_target_at_a_stop(shown: Any) -> None:
    arm = FakeFollower()
    robot = LeRobotRobot(arm, ranges=RANGES, control_dt_s=0.1)
    robot.connect()
    arm.positions["shoulder.pos"] = shown
    robot.stop()
    assert arm.sent == [{"gripper.pos": 50.0}]
    arm.positions["gripper.pos"] = shown
    robot.stop()
    assert arm.sent == [{"gripper.pos": 50.0}]


def test_the_arm_stops_although_a_camera_hangs() -> None:
    """Its last targets are sent again; without targets since the last connection, nothing is sent."""
    arm = FakeFollower()
    robot = LeRobotRobot(arm, ranges=RANGES, control_dt_s=0.1)
    seen = arm.get_observation

    def hangs() -> dict[str, Any]:
        raise RuntimeError("the camera's thread is not running")

    for _ in range(2):
        arm.sent.clear()
        robot.connect()
        arm.get_observation = hangs
        with pytest.raises(ConnectionError, match="thread is not running"):
            robot.observe()
        robot.stop()
        assert arm.sent == []
        robot.act(np.array([0.5, 0.0], np.float32))
        robot.stop()
        assert arm.sent == [{"shoulder.pos": 45.0, "gripper.pos": 50.0}] * 2
        arm.get_observation = seen
        robot.disconnect()


class Part:
    """A bus or a camera of an arm."""

    def __init__(self, works: bool) -> None:
        self.works, self.is_connected, self.goes_limp = works, False, False

    def connect(self) -> None:
        if not self.works:
            raise ConnectionError("unplugged")
        self.is_connected = True

    def disconnect(self, disable_torque: bool = False) -> None:
        self.is_connected, self.goes_limp = False, disable_torque


@pytest.mark.parametrize("goes_limp", [True, False])
def test_a_failing_camera_connection_disconnects_the_bus(goes_limp: bool) -> None:
    class Follower(FakeFollower):
        def __init__(self) -> None:
            super().__init__()
            self.bus, self.cameras = Part(works=True), {"top": Part(works=False)}
            self.config = SimpleNamespace(disable_torque_on_disconnect=goes_limp)

        def connect(self, calibrate: bool = True) -> None:
            self.bus.connect()
            self.cameras["top"].connect()
            super().connect(calibrate)

    arm = Follower()
    robot = LeRobotRobot(arm, ranges=RANGES, control_dt_s=0.1)
    with pytest.raises(ConnectionError, match="unplugged"):
        robot.connect()
    assert not arm.bus.is_connected
    assert arm.bus.goes_limp is goes_limp
    arm.cameras["top"].works = True
    robot.connect()
    assert arm.bus.is_connected


def test_a_lost_connection_ends_the_drive_and_disconnects_once() -> None:
    arm = FakeFollower()

    def chunk(n: int, x: float) -> NDArray[np.float32]:
        del x
        if n == 3:
            arm.is_connected = False
        return np.zeros((1, 8, 2), np.float32)

    outcome = drive(arm, Script(chunk), 2.0)
    assert outcome.ended == "robot failed: ConnectionError('FakeFollower is not connected')"
    assert outcome.num_steps == 3


def seeing(picture: Callable[[float], Any], seconds: float, **options: Any) -> tuple[FakeFollower, Any]:
    """Drive an arm, whose camera's frames are a function of time, to 45 degrees."""
    arm, clock = FakeFollower(), SimulatedClock()
    arm.get_observation = lambda: {**arm.positions, "top": picture(clock.now_s())}
    robot = LeRobotRobot(arm, ranges=RANGES, control_dt_s=0.1, clock=clock, **options)
    make_inference = partial(SimulatedInference, clock=clock, latency_s=lambda n: 0.0)
    agent = Agent(Targets(0.5, 0.0), robot, clock=clock, make_inference=make_inference)
    return arm, agent.run("wave", seconds)


def test_a_camera_that_repeats_an_array_holds_the_arm_within_two_periods() -> None:
    """Frames come until 1.05 s; the first period begins at 0.1 s, so that of period 9, at 1.0 s, is the last."""
    frames: dict[int, Any] = {}

    def picture(now_s: float) -> Any:
        return frames.setdefault(round(min(now_s, 1.0) * 10), np.full((48, 64, 3), 9, np.uint8))

    _, outcome = seeing(picture, 1.5)
    stale = [i.period for i in outcome.interventions if i.reason == "stale observation"]
    assert stale == [11, 12, 13, 14], "that of period 10 is one period old"


def test_a_camera_that_reuses_one_array_for_new_frames_is_not_frozen() -> None:
    array = np.zeros((48, 64, 3), np.uint8)

    def picture(now_s: float) -> Any:
        array[:] = round(10 * now_s)
        return array

    _, outcome = seeing(picture, 4.0)
    assert outcome.interventions == ()


@pytest.mark.parametrize(("frozen_after_s", "held"), [(2.0, True), (inf, False)])
def test_a_camera_that_repeats_a_frame_in_new_arrays_counts_as_frozen_after_its_timeout(
    frozen_after_s: float, held: bool
) -> None:
    """It came at 0 s, so it has that time from period 20 on, which begins at 2.1 s."""
    _, outcome = seeing(lambda now_s: np.full((48, 64, 3), 9, np.uint8), 4.0, frozen_after_s=frozen_after_s)
    stale = [i.period for i in outcome.interventions if i.reason == "stale observation"]
    assert stale == (list(range(20, 40)) if held else [])


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (np.full((48, 64, 3), 300, np.uint16), "camera 'top' gives uint16 (48, 64, 3), expected uint8 (48, 64, 3)"),
        (np.zeros((3, 48, 64), np.uint8), "camera 'top' gives uint8 (3, 48, 64), expected uint8 (48, 64, 3)"),
        (None, "camera 'top' is missing; cameras: top"),
        ("jpeg", "camera 'top' gives a str, expected uint8 (48, 64, 3)"),
    ],
)
def test_an_invalid_frame_holds_the_arm_and_is_logged(bad: Any, words: str) -> None:
    rng = np.random.default_rng(0)

    def picture(now_s: float) -> Any:
        return bad if 0.45 < now_s < 0.75 else rng.integers(0, 255, (48, 64, 3), np.uint8)

    _, outcome = seeing(picture, 1.5)
    broken = {i.period: i.detail for i in outcome.interventions if i.reason == "broken observation"}
    assert broken == dict.fromkeys((4, 5, 6), words)


def test_grey_and_rgba_cameras_give_rgb() -> None:
    rng = np.random.default_rng(0)
    for channels in ((), (1,), (4,)):
        _, outcome = seeing(lambda now_s, more=channels: rng.integers(0, 255, (48, 64, *more), np.uint8), 1.0)
        assert outcome.interventions == ()


def test_names_and_ranges_are_checked_before_anything_connects() -> None:
    arm = FakeFollower()
    with pytest.raises(ValueError, match=r"ranges lacks gripper.pos"):
        LeRobotRobot(arm, ranges={"shoulder.pos": (-90, 90)}, control_dt_s=0.1)
    with pytest.raises(ValueError, match="camera 'wrist' is not of this arm; there are: top"):
        LeRobotRobot(arm, ranges=RANGES, control_dt_s=0.1, cameras={"wrist": CameraSpec(name="w", height=1, width=1)})
    with pytest.raises(
        ValueError, match=r"limits of 'elbow.pos' is not of this arm; there are: gripper.pos, shoulder.pos"
    ):
        LeRobotRobot(arm, ranges=RANGES, control_dt_s=0.1, limits={"elbow.pos": Limits()})
