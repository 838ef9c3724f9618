"""The task that needs memory: what it shows when, that its expert can do it, and that the hand tells nothing."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from tables import BLIND

from envs.make import make_world
from envs.tabletop.tasks import EVERY_TASK, MEMORY_TASKS, SUITES, TASKS
from envs.tabletop.tasks.recall_button import CUE_STEPS, GO_STEP
from envs.tabletop.world import TabletopWorld
from envs.types import EpisodeSpec

NUM_SEEDS = 24


def spec(seed: int, variation: str = "train") -> EpisodeSpec:
    return EpisodeSpec(suite="tabletop_memory", task="recall_button", seed=seed, variation=variation)


def shining(world: TabletopWorld) -> NDArray[np.bool_]:
    """Which buttons of each world shine, [N, buttons]."""
    return world.sim.model_field["geom_rgba"][:, list(world.scene.button_geoms), 0] > 0.5


def test_suites_share_no_task_and_the_tabletops_task_list_is_unchanged() -> None:
    assert len(TASKS) == 12 and len(EVERY_TASK) == sum(map(len, SUITES.values()))
    assert TabletopWorld(1, BLIND).tasks == tuple(TASKS)
    world = TabletopWorld(1, BLIND, suite="tabletop_memory")
    assert world.tasks == tuple(MEMORY_TASKS) == ("recall_button",)
    with pytest.raises(ValueError, match="task 'reach' does not exist in tabletop_memory; tasks: recall_button"):
        world.task_of(EpisodeSpec(suite="tabletop_memory", task="reach", seed=0))


def test_the_target_is_lit_then_no_button_then_all() -> None:
    world = TabletopWorld(NUM_SEEDS, BLIND, suite="tabletop_memory")
    world.reset_to([spec(seed) for seed in range(NUM_SEEDS)], range(NUM_SEEDS))
    targets = np.array([world.episode(n).target for n in range(NUM_SEEDS)])
    assert set(targets.tolist()) == {0, 1, 2}
    for step in range(GO_STEP + 2):
        expected = np.arange(3) == targets[:, None] if step < CUE_STEPS else np.full((NUM_SEEDS, 3), step >= GO_STEP)
        np.testing.assert_array_equal(shining(world), expected, err_msg=f"step {step}")
        world.step_chunk(np.zeros((NUM_SEEDS, 1, 7), np.float32))
    world.reset_to([spec(seed + 1) for seed in range(NUM_SEEDS)], range(NUM_SEEDS))
    assert shining(world).sum(axis=1).tolist() == [1] * NUM_SEEDS


def test_signals_are_visible_after_and_within_chunks() -> None:
    worlds = [make_world("tabletop_memory", 1) for _ in range(2)]
    for world in worlds:
        world.reset_to([spec(3)], [0])
    still = np.zeros((1, GO_STEP + 1, 7), np.float32)
    still[:, :, 6] = -1.0  # the fingers begin open
    frames = worlds[0].step_chunk(still, all_frames=True).all_frames
    assert frames is not None
    front = frames["front"][0].astype(int)
    changes = np.abs(np.diff(front, axis=0)).max(axis=(1, 2, 3)) > 60
    assert np.flatnonzero(changes).tolist() == [CUE_STEPS - 2, GO_STEP - 2]  # frame i is the one after action i
    after = worlds[1].step_chunk(still).observation["frames"]["front"][0]
    np.testing.assert_array_equal(after, front[-1])
    for world in worlds:
        world.close()


def test_the_expert_presses_the_cued_button_and_waits_in_the_same_place_for_each() -> None:
    world = TabletopWorld(NUM_SEEDS, BLIND, suite="tabletop_memory")
    world.reset_to([spec(seed) for seed in range(NUM_SEEDS)], range(NUM_SEEDS))
    results = [world.step_chunk(world.expert_action()[:, None]) for _ in range(world.task_of(spec(0)).max_steps)]
    shown = world.world_spec.state
    waited = results[GO_STEP - 1].observation["state"]
    assert np.ptp(waited[:, list(shown.position)][:, :2], axis=0).max() < 0.005
    assert waited[:, shown.names.index("gripper_opening")].max() < 0.01
    assert results[-1].success.all()


def test_pressing_another_button_than_the_cued_one_ends_the_episode() -> None:
    world = TabletopWorld(1, BLIND, suite="tabletop_memory")
    world.reset_to([spec(0)], [0])
    world.sampled.target[0] = (world.episode(0).target + 1) % 3
    while True:
        misled = world.expert_action()
        world.sampled.target[0] = world.episode(0).target
        result = world.step_chunk(misled[:, None])
        world.sampled.target[0] = (world.episode(0).target + 1) % 3
        if result.done[0]:
            break
    assert result.failure == ("wrong button",)


def test_instructions_name_no_button() -> None:
    task = MEMORY_TASKS["recall_button"]
    assert all("{" not in text for text in task.paraphrases + task.held_out_paraphrases)
    assert not set(task.paraphrases) & set(task.held_out_paraphrases)
