"""Simulators as robots, in simulated time."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from numpy.typing import NDArray
from six_axis import SIX_AXIS

from agent.robot.agent import Agent
from agent.robot.robots.sim_robot import SimRobot
from agent.robot.robots.tabletop import axes_of
from agent.robot.types import Axis
from benchmarks.simulated import SimulatedClock, SimulatedInference
from envs.make import make_world
from envs.suites.gymnasium_env import GymnasiumTask, GymnasiumWorld
from envs.tabletop.arm.panda import PANDA
from envs.tabletop.world import TabletopConfig, TabletopWorld
from envs.types import EpisodeSpec, Observation
from envs.world import World
from rollout.dataset.read import DatasetReader
from rollout.dataset.schema import read_world_spec
from vla_model.types import ActionChunk

DT_S = 0.1
REACH = EpisodeSpec(suite="tabletop", task="reach", seed=1_000_000)


class ExpertChunks:
    """Policy that repeats the world's scripted expert for three moves."""

    version = -1

    def __init__(self, world: World) -> None:
        self.world = world

    def begin(self, worlds: Sequence[int], instructions: tuple[str, ...], seeds: tuple[int, ...]) -> None:
        pass

    def act(self, worlds: Sequence[int], observation: Observation) -> ActionChunk:
        del observation
        return ActionChunk(actions=np.repeat(self.world.expert_action()[:, None], 3, axis=1))


def simulated(world: World, robot: SimRobot, clock: SimulatedClock, latency_s: float = 0.0) -> Agent:
    make_inference = partial(SimulatedInference, clock=clock, latency_s=lambda n: latency_s)
    return Agent(ExpertChunks(world), robot, clock=clock, make_inference=make_inference)


def test_each_period_is_one_step_of_the_world_despite_jitter() -> None:
    rng = np.random.default_rng(0)
    actions = rng.uniform(-0.5, 0.5, (12, 7)).astype(np.float32)
    with closing(make_world("tabletop")) as world:
        world.reset_to((REACH,), (0,))
        states = world.step_chunk(actions[None]).states[0]
    with closing(make_world("tabletop")) as world:
        clock = SimulatedClock()
        robot = SimRobot(world, REACH, clock=clock)
        robot.connect()
        clock.jump(1.0)
        for i, action in enumerate(actions):
            robot.act(action)
            clock.jump(1.0 + (i + 1) * DT_S + rng.uniform(-0.04, 0.04))
            assert np.array_equal(robot.observe().state, states[i])


def test_periods_without_an_action_are_at_rest_with_the_gripper_as_it_was() -> None:
    close = np.array([0.3, 0, 0, 0, 0, 0, 1.0], np.float32)
    rest = np.array([0, 0, 0, 0, 0, 0, 1.0], np.float32)
    with closing(make_world("tabletop")) as world:
        world.reset_to((REACH,), (0,))
        expected = world.step_chunk(np.stack([close, rest, rest, rest])[None]).states[0, -1]
    with closing(make_world("tabletop")) as world:
        clock = SimulatedClock()
        robot = SimRobot(world, REACH, clock=clock)
        robot.connect()
        first = robot.observe().state
        clock.jump(5.0)
        assert np.array_equal(robot.observe().state, first), "time begins with the first action"
        robot.act(close)
        clock.jump(5.0 + 4 * DT_S)
        assert np.array_equal(robot.observe().state, expected)
        robot.disconnect()
        with pytest.raises(ConnectionError, match="tabletop is not connected"):
            robot.observe()


def test_a_stop_drops_the_periods_pending_action() -> None:
    with closing(make_world("tabletop")) as world:
        clock = SimulatedClock()
        robot = SimRobot(world, REACH, clock=clock)
        robot.connect()
        before = robot.observe().state
        robot.act(np.array([1, 0, 0, 0, 0, 0, -1], np.float32))
        robot.stop()
        clock.jump(0.5)
        assert np.abs(robot.observe().state[:10] - before[:10]).max() < 0.01


@pytest.mark.parametrize("latency_s", [0.0, 0.1])
def test_an_agent_completes_a_task_and_records_a_dataset(latency_s: float, tmp_path: Path) -> None:
    with closing(make_world("tabletop")) as world:
        clock = SimulatedClock()
        robot = SimRobot(world, REACH, clock=clock)
        outcome = simulated(world, robot, clock, latency_s).run("touch it", 30.0, record=tmp_path / "drives")
        assert robot.instruction != "touch it"
    assert (outcome.success, outcome.ended) == (True, "success")
    dataset = DatasetReader(tmp_path / "drives")
    (episode,) = dataset
    assert (episode.instruction, episode.row["success"], episode.row["length"]) == (
        "touch it",
        True,
        outcome.num_steps,
    )
    assert dataset.info["robot_type"] == "tabletop"
    assert read_world_spec(dataset.info) == world.world_spec
    assert episode.columns["next.success"].tolist() == [False] * (outcome.num_steps - 1) + [True]
    assert episode.columns["label.localization"].shape == (outcome.num_steps, world.world_spec.localization.size)


def test_a_robot_has_one_world_and_relative_axes_where_the_world_has_no_arm() -> None:
    with closing(make_world("tabletop", 2)) as two, pytest.raises(ValueError, match="this one has 2"):
        SimRobot(two, REACH)
    with closing(make_world("tabletop_memory")) as world:
        assert SimRobot(world, REACH).spec.axes == axes_of(PANDA), "the same arm at another table"
        world.arm = None
        assert set(SimRobot(world, REACH).spec.axes) == {Axis(relative=True)}


def test_another_arm_is_driven_within_its_own_limits() -> None:
    with closing(TabletopWorld(1, TabletopConfig(arm=SIX_AXIS, cameras=()))) as world:
        spec = SimRobot(world, REACH).spec
    sideways, gripper = spec.axes[1], spec.axes[6]
    assert (sideways.scale, sideways.limits.low, sideways.limits.high) == (0.03, -0.28, 0.28)
    assert gripper.limits.high == 2 * SIX_AXIS.finger_travel_m
    assert [(watch.state, watch.low, watch.high) for watch in spec.watched][2] == ("six_elbow_pos", 0.2, 2.7)


class PixelLine(gymnasium.Env[NDArray[np.float32], NDArray[np.float32]]):
    """A point on a line of ten pixels, moved by 0 to 2 pixels per step; its goal is the last one."""

    def __init__(self) -> None:
        self.observation_space = gymnasium.spaces.Box(0.0, 9.0, (1,), np.float32)
        self.action_space = gymnasium.spaces.Box(0.0, 2.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, object] | None = None):  # noqa: ANN201
        super().reset(seed=seed)
        self.x = 0.0
        return np.array([self.x], np.float32), {}

    def step(self, action: NDArray[np.float32]):  # noqa: ANN201
        assert self.action_space.contains(np.asarray(action, np.float32))
        self.x = min(9.0, self.x + float(action[0]))
        done = self.x >= 9.0
        return np.array([self.x], np.float32), 0.0, done, False, {"is_success": done}

    def render(self) -> NDArray[np.uint8]:
        frame = np.zeros((4, 10, 3), np.uint8)
        frame[:, round(self.x)] = 255
        return frame


class GoRight(GymnasiumTask):
    max_steps = 40

    def make_env(self) -> PixelLine:
        return PixelLine()

    def instruction(self, env: Any) -> str:
        return "go right"

    def state(self, env: Any, observation: NDArray[np.float32]) -> NDArray[np.float32]:
        return observation


class OnePixel:
    """Policy of one pixel per step until the point is at the end: action 0 is 1 pixel."""

    version = 0

    def begin(self, worlds: Sequence[int], instructions: tuple[str, ...], seeds: tuple[int, ...]) -> None:
        pass

    def act(self, worlds: Sequence[int], observation: Observation) -> ActionChunk:
        assert observation["frames"]["image"].shape == (1, 4, 10, 3)
        return ActionChunk(actions=np.zeros((1, 4, 1), np.float32))


def test_a_gymnasium_environment_can_be_driven_as_a_robot() -> None:
    clock = SimulatedClock()
    with closing(GymnasiumWorld(1, suite="line", tasks={"right": GoRight()}, control_dt_s=0.5)) as world:
        robot = SimRobot(world, EpisodeSpec(suite="line", task="right", seed=0), clock=clock)
        make_inference = partial(SimulatedInference, clock=clock, latency_s=lambda n: 0.0)
        outcome = Agent(OnePixel(), robot, clock=clock, make_inference=make_inference).run("go right", 20.0)
    assert (robot.spec.name, robot.instruction) == ("line", "go right")
    assert (outcome.success, outcome.ended, outcome.num_steps) == (True, "success", 9)
