"""Worlds on the CPU and on Warp agree: frames, states and success flags of the same episodes under the same actions.

Warp computes in float32, so states differ from the first step on, by micrometres. What the arm does by itself stays
that close. A push or a grasp magnifies it, as it would any other disturbance: what was touched is compared more
loosely, and by what became of it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from tables import busy_actions, every_task, spec

from envs.arrays import to_numpy
from envs.make import make_world
from envs.tabletop.episodes.variations import VARIATIONS
from envs.tabletop.tasks import TASKS
from envs.tabletop.world import TabletopWorld

NUM_WORLDS = len(TASKS)
Pair = tuple[TabletopWorld, TabletopWorld]
"""On the CPU and on Warp."""


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    cpu, warp = make_world("tabletop", NUM_WORLDS), make_world("tabletop", NUM_WORLDS, "warp")
    assert isinstance(cpu, TabletopWorld)
    assert isinstance(warp, TabletopWorld)
    yield cpu, warp
    cpu.close()
    warp.close()


def pixel_errors(ours: NDArray[np.uint8], theirs: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of each frame of [N, H, W, 3]: mean absolute difference, and share of pixels that differ by more than 32."""
    difference = np.abs(ours.astype(int) - theirs)
    return difference.mean((1, 2, 3)), (difference.max(-1) > 32).mean((1, 2))


@pytest.mark.parametrize("seed", [0, 1])
def test_first_frames_states_and_labels_are_close(pair: Pair, seed: int) -> None:
    specs = [spec(task, seed, VARIATIONS[(i + seed) % 5]) for i, task in enumerate(TASKS)]
    (ours, our_info), (theirs, their_info) = (world.reset_to(specs, range(NUM_WORLDS)) for world in pair)
    np.testing.assert_allclose(to_numpy(theirs["state"]), ours["state"], atol=2e-6)
    np.testing.assert_allclose(to_numpy(their_info["localization"]), our_info["localization"], atol=2e-5)
    for camera, frames in ours["frames"].items():
        shown = to_numpy(theirs["frames"][camera])
        mean, share = pixel_errors(frames, shown)
        assert mean.max() < 5, camera
        assert share.max() < 0.01, camera
        _, share = pixel_errors(frames, np.roll(shown, 1, axis=0))
        assert share.min() > 0.02, "frames of other episodes are told apart"


def positions_off(pair: Pair) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How far apart the two are in each world: the arm's joints in radians, the loose objects in metres, [N] each."""
    cpu, warp = pair
    off = np.abs(to_numpy(warp.sim.field["qpos"]) - cpu.sim.field["qpos"])
    objects = np.stack([off[:, start : start + 3] for start in cpu.scene.object_qpos], axis=1)
    return off[:, cpu.scene.joints].max(axis=1), objects.max(axis=(1, 2))


def test_50_free_space_steps_agree_to_a_thousandth_of_a_radian(pair: Pair) -> None:
    for world in pair:
        world.reset_to(every_task(seed=4), range(NUM_WORLDS))
    actions = busy_actions(NUM_WORLDS, 50)
    actions[:, :, 2] += 0.6
    ours, theirs = (world.step_chunk(actions) for world in pair)
    np.testing.assert_allclose(to_numpy(theirs.states), ours.states, atol=1e-3)
    np.testing.assert_array_equal(theirs.done, ours.done)
    joints_rad, objects_m = positions_off(pair)
    assert joints_rad.max() < 1e-3
    assert np.median(joints_rad) < 2e-5
    assert objects_m.max() < 5e-4, "things at rest stay where they are"


def test_50_expert_steps_agree_in_every_task(pair: Pair) -> None:
    cpu, _ = pair
    for world in pair:
        world.reset_to(every_task(seed=3), range(NUM_WORLDS))
    for _ in range(50):
        action = cpu.expert_action()[:, None]
        ours, theirs = (world.step_chunk(action) for world in pair)
    assert ours.done.all()
    np.testing.assert_array_equal(theirs.success, ours.success)
    joints_rad, objects_m = positions_off(pair)
    assert joints_rad.max() < 0.03
    assert objects_m.max() < 0.03
    assert np.median(joints_rad) < 1e-4
    assert np.median(objects_m) < 5e-4


def test_the_expert_succeeds_in_the_same_episodes_on_both(pair: Pair) -> None:
    results = []
    for world in pair:
        world.reset_to(every_task(seed=0), range(NUM_WORLDS))
        result = world.step_chunk(world.expert_action()[:, None])
        while not result.done.all():
            result = world.step_chunk(world.expert_action()[:, None])
        results.append(result)
    ours, theirs = results
    np.testing.assert_array_equal(theirs.success, ours.success)
    assert theirs.failure == ours.failure
    assert ours.success.sum() >= NUM_WORLDS - 1
