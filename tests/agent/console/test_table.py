"""The simulated table behind the page, in simulated time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest
from numpy.typing import NDArray

from agent.console.table import LiveTable, TableExpert
from agent.robot.agent import Agent
from benchmarks.simulated import SimulatedClock, SimulatedInference
from envs.tabletop.view import Poses
from envs.tabletop.world import TabletopWorld
from envs.types import EpisodeSpec

DT_S = 0.1
PICK = EpisodeSpec(suite="tabletop", task="pick_place", seed=1_000_000)
REST = np.array([0, 0, 0, 0, 0, 0, -1], np.float32)


class Clocked(LiveTable):
    """In simulated time."""

    def __init__(self, world: TabletopWorld, episode: EpisodeSpec) -> None:
        super().__init__(world, episode)
        self.clock = self._clock = SimulatedClock()

    def rest(self, periods: int) -> None:
        for _ in range(periods):
            self.act(REST)
            self.clock.jump(self.clock.now_s() + DT_S)
            self.observe()

    def place(self, thing: str) -> NDArray[np.float64]:
        assert self.scene is not None
        time.sleep(DT_S)  # what is shown is a period old
        return self.poses().pos_m[self.scene.things[thing]]


@pytest.fixture(scope="module")
def world() -> Iterator[TabletopWorld]:
    world = TabletopWorld(1)
    yield world
    world.close()


@pytest.fixture
def table(world: TabletopWorld) -> Clocked:
    table = Clocked(world, PICK)
    table.connect()
    return table


def test_the_objects_on_the_table_are_listed_by_name(table: Clocked) -> None:
    assert table.scene is not None
    assert len(table.scene.things) == 3
    assert any(name in table.instruction for name in table.scene.things)
    for name, start in zip(table.scene.things, table.tabletop.episode(0).object_xy_m, strict=True):
        assert table.place(name)[:2] == pytest.approx(start, abs=1e-6)


def test_a_pushed_object_slides_and_comes_to_rest(table: Clocked) -> None:
    assert table.scene is not None
    name, *others = table.scene.things
    before, still = table.place(name), table.place(others[0])
    table.push(name, np.array([1.0, 0.0, 0.0]))
    table.rest(10)
    way = table.place(name) - before
    assert 0.03 < way[0] < 0.15 and abs(way[1]) < 0.02 and abs(way[2]) < 0.003
    assert np.abs(table.place(others[0]) - still).max() < 1e-3
    after = table.place(name)
    table.rest(3)
    assert np.abs(table.place(name) - after).max() < 1e-3


def test_a_dragged_object_follows_its_target_and_falls_when_released(table: Clocked) -> None:
    assert table.scene is not None
    name = next(iter(table.scene.things))
    target = table.place(name) + np.array((0.0, 0.0, 0.06))
    table.drag(name, target)
    table.rest(15)
    assert table.place(name) == pytest.approx(target, abs=0.005)
    table.drag(name, None)
    table.rest(10)
    assert table.place(name)[2] == pytest.approx(target[2] - 0.06, abs=0.003)


def test_a_new_episode_begins_with_nothing_held(table: Clocked) -> None:
    assert table.scene is not None
    name = next(iter(table.scene.things))
    before, scene = table.place(name), table.scene
    table.drag(name, before + np.array((0.0, 0.0, 0.1)))
    table.connect()
    assert table.scene is not scene and table.scene.spec == PICK
    table.rest(5)
    assert table.place(name) == pytest.approx(before, abs=1e-3)


def test_shown_poses_are_interpolated_along_the_shortest_rotation() -> None:
    quarter = np.array([[np.cos(np.pi / 4), 0, 0, np.sin(np.pi / 4)]])
    before = Poses(pos_m=np.zeros((1, 3)), quat=np.array([[1.0, 0, 0, 0]]), tool_m=np.zeros(3))
    after = Poses(pos_m=np.array([[0.2, 0, 0]]), quat=-quarter, tool_m=np.array([0, 0.4, 0]))
    half = before.towards(after, 0.5)
    assert half.pos_m[0] == pytest.approx([0.1, 0, 0]) and half.tool_m == pytest.approx([0, 0.2, 0])
    assert half.quat[0] == pytest.approx([np.cos(np.pi / 8), 0, 0, np.sin(np.pi / 8)])


@pytest.mark.parametrize("task", ["pick_place", "stack", "open_drawer", "press_button"])
def test_the_scripted_expert_succeeds_with_one_period_of_latency(world: TabletopWorld, task: str) -> None:
    table = Clocked(world, EpisodeSpec(suite="tabletop", task=task, seed=1_000_000))
    make_inference = partial(SimulatedInference, clock=table.clock, latency_s=lambda n: DT_S)
    agent = Agent(TableExpert(table), table, clock=table.clock, make_inference=make_inference)
    assert agent.run("do it", 30.0).success
