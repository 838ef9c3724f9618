"""A world whose numbers explode ends as failed, where it last was sound, and its neighbours notice nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tables import begin, busy_actions, spec

from envs.tabletop.world import TabletopWorld
from envs.world import observation_space

TASKS_HERE = ("pick_place", "stack", "push", "press_button")
VICTIM = 1


def nan_position(world: TabletopWorld) -> None:
    world.sim.field["qpos"][VICTIM, 2] = np.nan


def infinite_position_of_an_object(world: TabletopWorld) -> None:
    world.sim.field["qpos"][VICTIM, world.scene.object_qpos[0]] = np.inf


def huge_joint_speed(world: TabletopWorld) -> None:
    world.sim.field["qvel"][VICTIM, 3] = 1e12


def explosion_within_the_step(world: TabletopWorld) -> None:
    world.sim.field["qvel"][VICTIM, :7] = 1e7


SABOTAGE = (nan_position, infinite_position_of_an_object, huge_joint_speed, explosion_within_the_step)


@pytest.fixture
def in_scratch_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo writes its warnings to a file where it stands


@pytest.mark.usefixtures("in_scratch_folder")
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("sabotage", SABOTAGE)
def test_invalid_physics_ends_only_its_own_episode(sabotage: Callable[[TabletopWorld], None]) -> None:
    specs = [spec(task, 6) for task in TASKS_HERE]
    actions = busy_actions(4, 9)
    broken, sound = TabletopWorld(4), TabletopWorld(4)
    for world in (broken, sound):
        begin(world, specs)
        before = world.step_chunk(actions[:, :3])
    sabotage(broken)
    ours, theirs = broken.step_chunk(actions[:, 3:6]), sound.step_chunk(actions[:, 3:6])
    assert ours.failure[VICTIM] == "non-finite physics"
    assert ours.terminated[VICTIM]
    assert not ours.truncated[VICTIM]
    assert not ours.success[VICTIM]
    assert ours.num_steps[VICTIM] == 1
    assert not ours.reward[VICTIM].any()
    assert np.isfinite(ours.states).all()
    assert np.isfinite(ours.localization).all()
    assert observation_space(broken.world_spec)["state"].contains(ours.observation["state"][VICTIM])

    neighbours = [0, 2, 3]
    later = [world.step_chunk(actions[:, 6:]) for world in (broken, sound)]
    for mine, other in ((ours, theirs), later):
        for name in ("states", "localization", "reward", "num_steps", "terminated", "truncated", "success"):
            np.testing.assert_array_equal(getattr(mine, name)[neighbours], getattr(other, name)[neighbours], name)
        for camera, frames in mine.observation["frames"].items():
            np.testing.assert_array_equal(frames[neighbours], other.observation["frames"][camera][neighbours])
        assert [mine.failure[n] for n in neighbours] == [other.failure[n] for n in neighbours]
    np.testing.assert_array_equal(broken.sim.batch.state[neighbours], sound.sim.batch.state[neighbours])

    # Nothing moved since it was sound, so it shows what it showed before, and goes on showing it.
    for camera, frames in before.observation["frames"].items():
        np.testing.assert_array_equal(ours.observation["frames"][camera][VICTIM], frames[VICTIM])
        np.testing.assert_array_equal(later[0].observation["frames"][camera][VICTIM], frames[VICTIM])
    assert later[0].num_steps[VICTIM] == 0


@pytest.mark.usefixtures("in_scratch_folder")
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("sabotage", SABOTAGE)
def test_a_world_with_invalid_physics_begins_its_next_episode_normally(
    sabotage: Callable[[TabletopWorld], None],
) -> None:
    specs = [spec(task, 6) for task in TASKS_HERE]
    broken, sound = TabletopWorld(4), TabletopWorld(4)
    begin(broken, specs)
    sabotage(broken)
    assert broken.step_chunk(busy_actions(4, 1)).failure[VICTIM] == "non-finite physics"
    results = []
    for world in (broken, sound):
        begin(world, specs)
        results.append(world.step_chunk(busy_actions(4, 4, seed=1)))
    np.testing.assert_array_equal(results[0].states, results[1].states)
    assert results[0].failure == (None,) * 4


@pytest.mark.usefixtures("in_scratch_folder")
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_all_worlds_may_fail_in_the_same_step() -> None:
    world = TabletopWorld(2)
    begin(world, [spec("lift"), spec("reach")])
    world.sim.field["qvel"][:, 0] = np.nan
    result = world.step_chunk(busy_actions(2, 2))
    assert result.failure == ("non-finite physics",) * 2
    assert result.num_steps.tolist() == [1, 1]
