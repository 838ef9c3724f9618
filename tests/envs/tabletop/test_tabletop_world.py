"""The world's conduct: gymnasium's API, the autoreset rule, what it refuses, and frames that show the present."""

from __future__ import annotations

import re
from itertools import pairwise

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, VectorEnv
from tables import BLIND, begin, busy_actions, every_task, fingerprint, spec

from envs.make import make_world
from envs.tabletop.tasks import TASKS
from envs.tabletop.world import TabletopConfig, TabletopWorld
from envs.types import CameraSpec, EpisodeSpec
from envs.world import World


def still(num_worlds: int, num_steps: int) -> np.ndarray:
    return np.zeros((num_worlds, num_steps, 7), np.float32)


def test_the_world_is_a_vector_env_whose_spaces_contain_its_observations_and_actions() -> None:
    world = TabletopWorld(12)
    assert isinstance(world, VectorEnv)
    assert world.metadata["autoreset_mode"] is AutoresetMode.DISABLED
    observation, info = world.reset(seed=0)
    assert world.observation_space.contains(observation)
    assert info["localization"].shape == (12, world.world_spec.localization.size)
    world.action_space.seed(0)
    for _ in range(5):
        action = world.action_space.sample()
        assert world.action_space.contains(action)
        observation, reward, terminated, truncated, info = world.step(action)
        assert world.observation_space.contains(observation)
        assert reward.shape == terminated.shape == truncated.shape == info["is_success"].shape == (12,)
        labels, label_spec = info["localization"], world.world_spec.localization
        assert ((labels >= label_spec.low) & (labels <= label_spec.high)).all()
    assert set(world.tasks) == {world.episode(n).spec.task for n in range(12)}
    world.close()
    world.close()


def test_extreme_actions_do_not_leave_the_observation_space() -> None:
    world = TabletopWorld(8, BLIND)
    for corner in range(2):
        signs = np.array([[1 if (n + corner) >> bit & 1 else -1 for bit in range(7)] for n in range(8)], np.float32)
        begin(world, [spec("slide", n) for n in range(8)])
        states = world.step_chunk(np.repeat(signs[:, None], 40, axis=1)).states
        space = world.single_observation_space
        assert isinstance(space, gymnasium.spaces.Dict)
        assert all(space["state"].contains(state) for states_of_one in states for state in states_of_one)


def test_actions_beyond_their_range_are_clipped() -> None:
    clipped, beyond = TabletopWorld(1, BLIND), TabletopWorld(1, BLIND)
    for world in (clipped, beyond):
        begin(world, [spec("lift")])
    actions = busy_actions(1, 4) * 5
    np.testing.assert_array_equal(beyond.step_chunk(actions).states, clipped.step_chunk(np.clip(actions, -1, 1)).states)


def test_a_finished_episode_does_not_move_until_its_reset() -> None:
    world = TabletopWorld(2)
    begin(world, [spec("reach"), spec("place")])
    limit = TASKS["reach"].max_steps
    result = world.step_chunk(still(2, limit + 5))
    assert result.truncated.tolist() == [True, False]
    assert result.terminated.tolist() == [False, False]
    assert result.done.tolist() == [True, False]
    assert result.num_steps.tolist() == [limit, limit + 5]
    assert not result.reward[0, limit:].any()
    assert (result.states[0, limit:] == result.states[0, limit - 1]).all()
    held = fingerprint(result.observation, 0)
    later = world.step_chunk(busy_actions(2, 3))
    assert later.num_steps.tolist() == [0, 3]
    assert later.truncated[0]
    assert fingerprint(later.observation, 0) == held
    assert not world.expert_action()[0].any()
    assert world.expert_action()[1].any()

    neighbour = fingerprint(later.observation, 1)
    mask = np.array([True, False])
    observation, _ = world.reset(options={"specs": [spec("lift", 4)], "reset_mask": mask})
    assert observation["instruction"][0] == world.episode(0).instruction != later.observation["instruction"][0]
    assert fingerprint(observation, 1) == neighbour
    assert world.step_chunk(still(2, 1)).num_steps.tolist() == [1, 1]


def test_an_object_that_leaves_the_table_ends_the_episode_with_its_label_in_range() -> None:
    world = TabletopWorld(3, BLIND)
    begin(world, [spec("lift"), spec("stack"), spec("lift", 1)])
    for n, thing in ((0, world.episode(0).target), (1, world.episode(1).goal)):
        start = world.scene.object_qpos[thing]
        world.sim.field["qpos"][n, start : start + 3] = (0.5, 0.0, -100.0)
    result = world.step_chunk(still(3, 2))
    assert result.failure == ("object off the table", "object off the table", None)
    assert result.terminated.tolist() == [True, True, False]
    assert result.num_steps.tolist() == [1, 1, 2]
    labels = world.world_spec.localization
    assert (result.localization >= labels.low).all()
    assert (result.localization <= labels.high).all()


def test_success_ends_an_episode_and_is_rewarded_once() -> None:
    world = TabletopWorld(1, BLIND)
    begin(world, [spec("reach", 3)])
    result = world.step_chunk(world.expert_action()[:, None])
    rewards = [float(result.reward[0, 0])]
    while not result.done[0]:
        result = world.step_chunk(world.expert_action()[:, None])
        rewards.append(float(result.reward[0, 0]))
    assert result.success[0]
    assert result.terminated[0]
    assert not result.truncated[0]
    assert result.failure == (None,)
    assert sum(rewards) == rewards[-1] == 1.0
    assert world.step_chunk(still(1, 2)).reward.sum() == 0.0


def test_reward_weights_come_from_the_config() -> None:
    world = TabletopWorld(1, TabletopConfig(cameras=(), success_weight=10.0, reach_weight=0.5, progress_weight=0.25))
    begin(world, [spec("pick_place")])
    result = world.step_chunk(busy_actions(1, 3))
    terms = result.reward_terms
    np.testing.assert_allclose(
        result.reward, 10 * terms["success"] + 0.5 * terms["reach"] + 0.25 * terms["progress"], rtol=1e-6
    )
    assert ((terms["reach"] > 0) & (terms["reach"] <= 1)).all()


def test_reset_seeds_are_reproducible_and_cycle_through_the_tasks() -> None:
    world = TabletopWorld(3, BLIND)
    world.reset(seed=11)
    ids = [world.episode(n).spec.id for n in range(3)]
    world.reset(seed=11)
    assert [world.episode(n).spec.id for n in range(3)] == ids
    world.reset(seed=[4, 4, 16])
    tasks = [world.episode(n).spec.task for n in range(3)]
    assert tasks == [world.tasks[4]] * 3


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (EpisodeSpec(suite="metaworld", task="lift", seed=0), "suite 'metaworld'; this world is 'tabletop'"),
        (spec("lfit"), "task 'lfit' does not exist in tabletop; tasks: reach, lift"),
        (spec("lift", variation="dark"), "variation 'dark' does not exist; variations: train, vision"),
    ],
)
def test_an_unknown_suite_task_or_variation_is_rejected_with_those_that_exist(bad: EpisodeSpec, message: str) -> None:
    world = TabletopWorld(2, BLIND)
    before = begin(world, [spec("lift"), spec("push")])
    with pytest.raises(ValueError, match=re.escape(message)):
        world.reset_to([spec("stack"), bad], [0, 1])
    assert world.episode(0).spec.task == "lift", "nothing was reset"
    np.testing.assert_array_equal(world.step_chunk(still(2, 1)).num_steps, (1, 1))
    assert before["instruction"][0] == world.episode(0).instruction


@pytest.mark.parametrize("shape", [(2, 7), (1, 3, 7), (2, 3, 6), (2, 0, 7), (2, 3, 7, 1)])
def test_actions_of_a_wrong_shape_are_refused(shape: tuple[int, ...]) -> None:
    world = TabletopWorld(2, BLIND)
    begin(world, [spec("lift"), spec("push")])
    with pytest.raises(ValueError, match=re.escape(f"[2, k >= 1, 7], got {list(shape)}")):
        world.step_chunk(np.zeros(shape, np.float32))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_non_finite_action_is_rejected_by_name_before_any_step(value: float) -> None:
    world = TabletopWorld(2, BLIND)
    begin(world, [spec("lift"), spec("push")])
    before = world.sim.batch.state.copy()
    actions = still(2, 3)
    actions[1, 2, 3] = value
    with pytest.raises(ValueError, match=f"action 'rot_x' of world 1, step 2 of the chunk, is {value}"):
        world.step_chunk(actions)
    np.testing.assert_array_equal(world.sim.batch.state, before)


def test_a_non_finite_action_of_a_finished_world_is_ignored() -> None:
    world = TabletopWorld(2, BLIND)
    world.reset_to([spec("lift")], [0])
    actions = still(2, 1)
    actions[1] = np.nan
    assert world.step_chunk(actions).num_steps.tolist() == [1, 0]


def test_worlds_that_cannot_be_made_or_reset_are_refused() -> None:
    with pytest.raises(ValueError, match="num_worlds must be at least 1, got 0"):
        TabletopWorld(0)
    with pytest.raises(ValueError, match="world 'kitchen' does not exist; worlds: tabletop"):
        make_world("kitchen")
    world = TabletopWorld(2, BLIND)
    with pytest.raises(ValueError, match="world 1 has not begun an episode"):
        world.episode(1)
    with pytest.raises(ValueError, match="1 specs begin in as many different worlds"):
        world.reset(options={"specs": [spec("lift")]})
    with pytest.raises(ValueError, match=re.escape("reset_mask must be bool (2,), got bool (3,)")):
        world.reset(options={"reset_mask": np.ones(3, bool)})
    assert isinstance(make_world("tabletop", 2), World)


def test_the_first_frame_shows_the_new_episode_and_not_the_previous_one() -> None:
    world = TabletopWorld(1)
    seen = [begin(world, [s])["frames"] for s in (spec("lift", 0), spec("lift", 1), spec("press_button", 0))]
    for camera in ("front", "wrist"):
        for earlier, later in pairwise(seen):
            assert (earlier[camera] != later[camera]).any(axis=-1).mean() > 0.02
    # A second look, after every quantity was computed anew, shows the same.
    world.sim.batch.forward()
    again = world.sim.render([0])
    for camera, frames in seen[-1].items():
        np.testing.assert_array_equal(again[camera], frames)


@pytest.mark.parametrize("camera", ["front", "wrist"])
def test_a_frame_follows_an_object_that_was_moved(camera: str) -> None:
    world = TabletopWorld(1)
    before = begin(world, [spec("lift", 2)])["frames"][camera][0]
    start = world.scene.object_qpos[0]
    world.sim.field["qpos"][0, start] += 0.03
    after = world.sim.render([0])[camera][0]
    moved = (before != after).any(axis=-1)
    assert 10 < moved.sum() < 0.2 * moved.size
    world.sim.field["qpos"][0, start] -= 0.03
    np.testing.assert_array_equal(world.sim.render([0])[camera][0], before)


def test_cameras_come_from_the_config() -> None:
    cameras = (CameraSpec(name="wrist", height=48, width=80),)
    world = TabletopWorld(1, TabletopConfig(cameras=cameras))
    observation = begin(world, every_task()[:1])
    assert {name: frames.shape for name, frames in observation["frames"].items()} == {"wrist": (1, 48, 80, 3)}


def test_image_coordinates_in_a_wider_frame_are_measured_in_that_frame() -> None:
    """A camera's height is given, so of a frame of 80 x 48 a place at the edge of a square one lies at 48 / 80."""
    names = TabletopWorld(1).world_spec.localization.names
    wide = TabletopWorld(1, TabletopConfig(cameras=(CameraSpec(name="wrist", height=48, width=80),)))
    places = []
    for world in (TabletopWorld(1), wide):
        _, info = world.reset_to([spec("reach")], [0])
        places.append(dict(zip(names, info["localization"][0].tolist(), strict=True)))
    square, wider = places
    assert 0 < abs(square["target_wrist_u"]) < 1
    assert wider["target_wrist_u"] == pytest.approx(square["target_wrist_u"] * 48 / 80, rel=1e-5)
    assert wider["target_wrist_v"] == square["target_wrist_v"]
    assert wider["target_front_u"] == square["target_front_u"], "in its usual frame"


def test_a_finished_world_is_not_rendered_unless_requested() -> None:
    worlds = TabletopWorld(2), TabletopWorld(2)
    steps = TASKS["reach"].max_steps
    assert steps < TASKS["pick_place"].max_steps
    up = still(2, steps)
    up[:, :, 2] = 0.1
    first, _ = (begin(world, [spec("reach"), spec("pick_place")])["frames"]["wrist"] for world in worlds)
    drawn, left = (
        world.step_chunk(up, ended_frames=ended).observation["frames"]["wrist"]
        for world, ended in zip(worlds, (True, False), strict=True)
    )
    np.testing.assert_array_equal(left[1], drawn[1])
    np.testing.assert_array_equal(left[0], first[0])
    assert (drawn[0] != first[0]).any()
