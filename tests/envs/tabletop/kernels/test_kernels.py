"""The kernels against the code that defines them: the same control law, labels, rewards and ends of episodes.

Both run here on the same arrays in float32, so they differ by rounding alone: by the order of sums, and by the way that
a linear system of six unknowns is solved.
"""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch
import warp as wp
from numpy.typing import NDArray
from six_axis import SIX_AXIS
from tables import BLIND, busy_actions

from envs.arm import ArmSpec
from envs.simulation.warp import WarpSim
from envs.tabletop.arm import control
from envs.tabletop.arm.panda import PANDA
from envs.tabletop.kernels import judging
from envs.tabletop.kernels.control import control_tick
from envs.tabletop.kernels.world import WarpTabletopWorld
from envs.tabletop.scene.scene import MAX_CONSTRAINTS, MAX_CONTACTS
from envs.tabletop.scene.things import OBJECT_HALF_HEIGHT_M
from envs.tabletop.tasks import EVERY_TASK, SUITES
from envs.tabletop.world import TabletopConfig, TabletopWorld
from envs.types import EpisodeSpec

make_simulator = functools.partial(WarpSim, max_contacts=MAX_CONTACTS, max_constraints=MAX_CONSTRAINTS)
REWARDED = replace(BLIND, success_weight=1.0, reach_weight=0.3, progress_weight=0.2)
PER_TASK = 40
RESTING = np.array((0.0, 0.0, OBJECT_HALF_HEIGHT_M))
ROUNDING = 2e-6
"""Metres, radians, half frames: some units in the last place of float32."""


def specs_of(suite: str, per_task: int) -> list[EpisodeSpec]:
    return [EpisodeSpec(suite=suite, task=task, seed=seed) for task in SUITES[suite] for seed in range(per_task)]


SPECS = specs_of("tabletop", 1)


def begun(suite: str, per_task: int, config: TabletopConfig) -> WarpTabletopWorld:
    specs = specs_of(suite, per_task)
    world = WarpTabletopWorld(len(specs), config, make_simulator, suite)
    world.reset_to(specs, range(len(specs)))
    return world


def scatter(world: WarpTabletopWorld, rng: np.random.Generator) -> None:
    """Move everything to somewhere near where it matters: some successes, some failures of every kind."""
    field, scene, num_worlds = world.sim.field, world.scene, world.num_envs
    qpos = field["qpos"].numpy()
    qpos[:, scene.joints] += rng.normal(0, 0.2, (num_worlds, len(world.config.arm.joints)))
    qpos[:, scene.fingers] = rng.uniform(0.0, world.config.arm.finger_travel_m, (num_worlds, 1))
    receptacles = world.sampled.receptacle_pos.numpy()
    field["qvel"].copy_(torch.from_numpy(rng.normal(0, 0.05, field["qvel"].shape).astype(np.float32)))
    for start in scene.object_qpos:
        pos = qpos[:, start : start + 3]
        goals = receptacles[np.arange(num_worlds), rng.integers(0, 2, num_worlds)]
        first = scene.object_qpos[rng.integers(0, 3)]
        other = qpos[:, first : first + 3] + 2 * RESTING
        targets = np.stack([pos, goals + RESTING, other, pos + 4 * RESTING, pos - 9 * RESTING])
        pos[:] = targets[rng.integers(0, 5, num_worlds), np.arange(num_worlds)]
        pos += rng.normal(0, 0.005, pos.shape)
    for drawer in scene.drawer_qpos:
        qpos[:, drawer] += rng.choice([0.0, 0.01, 0.09, -0.09], num_worlds)
    for button in scene.button_qpos:
        qpos[:, button] = rng.choice([0.0, 0.004, 0.012], num_worlds)
    qpos[:, scene.dial_qpos] = rng.choice([-0.7, 0.1, 0.7], num_worlds)
    world.sim._place()


def reaches_something(world: WarpTabletopWorld) -> None:
    """In a third of the worlds an object comes to the fingertips."""
    scene = world.scene
    for i, start in enumerate(scene.object_qpos):
        tip = world.sim.field["site_xpos"][i::9, scene.tcp_site]
        world.sim.field["qpos"][i::9, start : start + 3] = tip - torch.tensor([0.0, 0.0, 0.03])


@pytest.mark.parametrize("suite", SUITES)
def test_every_rule_label_and_reward_is_what_the_tasks_say(suite: str) -> None:
    world = begun(suite, PER_TASK, REWARDED)
    every, seen = np.arange(world.num_envs), set()
    for round_ in range(6):
        scatter(world, np.random.default_rng(round_))
        reaches_something(world)
        steps = np.random.default_rng(round_).integers(0, 60, world.num_envs)
        broken = np.random.default_rng(round_).random(world.num_envs) < 0.02
        outcome, ours = judged_by_kernel(world, steps, broken)
        world._running.steps[:] = steps + 1
        world._running.terminated[:] = world._running.truncated[:] = False
        success, wrong, lost = (flags.numpy() for flags in world._look(every))
        world._signal(every)
        world._running.judge(every, broken, success, wrong, lost)
        expected = np.select(
            [broken, success, wrong, lost, world._running.truncated],
            [judging.BROKEN, judging.SUCCEEDED, judging.WRONG, judging.LOST, judging.TRUNCATED],
            judging.RUNNING,
        )
        np.testing.assert_array_equal(outcome, expected)
        np.testing.assert_allclose(ours["state"], world._state, atol=ROUNDING)
        np.testing.assert_allclose(ours["localization"], world._localization, atol=ROUNDING, rtol=1e-5)
        np.testing.assert_array_equal(ours["geom_rgba"], world.sim.model_field["geom_rgba"])
        record = world._new_record(1)
        world._reward(torch.from_numpy(every[~broken]), torch.from_numpy(success[~broken]), record, 0)
        np.testing.assert_allclose(ours["reward"], record.reward, atol=ROUNDING)
        for name, term in record.reward_terms.items():
            np.testing.assert_allclose(ours[name], term, atol=ROUNDING, err_msg=name)
        seen |= {(task, code) for task, code in zip(world._running.tasks(every), outcome, strict=True)}
    tasks = {list(EVERY_TASK).index(task) for task in SUITES[suite]}
    for code in (judging.SUCCEEDED, judging.RUNNING):
        assert {task for task, found in seen if found == code} == tasks, "each task has succeeded, and gone on"
    assert suite != "tabletop" or sum(found == judging.WRONG for _, found in seen) >= 7
    assert suite != "tabletop" or sum(found == judging.LOST for _, found in seen) >= 7


def judged_by_kernel(
    world: WarpTabletopWorld, steps: NDArray[np.int64], broken: NDArray[np.bool_]
) -> tuple[NDArray[np.int32], dict[str, NDArray[np.float32]]]:
    """Outcomes after one more action, and what the kernel wrote."""
    buffers = world._new_buffers(1)
    outcome, counted = world._counters[3], world._counters[2]
    outcome.fill_(judging.RUNNING)
    counted.copy_(torch.from_numpy(steps))
    world._counters[4:].zero_()
    world.sim.moving.fill_(True)
    world.sim.broken.copy_(torch.from_numpy(broken))
    flags = wp.from_torch(world.sim.broken), wp.from_torch(world.sim.moving)
    world._kernel(judging.judge_action, *world._look_at, buffers.chunk, *flags)
    record = world._record(buffers, np.ones(world.num_envs, np.int64))
    assert world.sim.moving.tolist() == (outcome == judging.RUNNING).tolist()
    written = {"state": record.states[:, 0], "localization": record.localization[:, 0], "reward": record.reward}
    written |= record.reward_terms | {"geom_rgba": world.sim.model_field["geom_rgba"].clone()}
    return outcome.numpy().copy(), {name: values.numpy() for name, values in written.items()}


@pytest.mark.parametrize("arm", [PANDA, SIX_AXIS], ids=lambda arm: arm.name)
def test_a_tick_of_the_control_law_is_what_numpy_computes_in_double_precision(arm: ArmSpec) -> None:
    world = begun("tabletop", 4, replace(BLIND, arm=arm))
    scatter(world, np.random.default_rng(0))
    scene, num_worlds = world.scene, world.num_envs
    actions = np.random.default_rng(1).uniform(-1, 1, (num_worlds, 1, 7)).astype(np.float32)
    field = {name: values.double().numpy() for name, values in world.sim.field.items()}
    pos, mat = field["site_xpos"][:, scene.tcp_site], field["site_xmat"][:, scene.tcp_site].reshape(-1, 3, 3)
    action = actions[:, 0].astype(np.float64)
    goal = (pos + arm.position_scale_m * action[:, :3]).clip(arm.workspace_low_m, arm.workspace_high_m)
    turned = control.matrix_of(arm.rotation_scale_rad / control.TICKS * action[:, 3:6]) @ mat
    error = np.concatenate(((goal - pos) / control.TICKS, control.rotation_vector(turned, mat)), axis=1)
    jacobian = control.arm_jacobian(field["xaxis"][:, scene.joints], field["xanchor"][:, scene.joints], pos)
    targets = control.joint_targets(arm, field["qpos"][:, scene.joints], jacobian, error)

    world.sim.moving.fill_(True)
    step = wp.zeros(num_worlds, dtype=int)
    given = wp.from_torch(torch.from_numpy(actions)), step, wp.from_torch(world.sim.moving)
    world._kernel(control_tick, *world._robot, *given, 1)
    ctrl = world.sim.field["ctrl"].numpy()
    np.testing.assert_allclose(ctrl[:, scene.joints], targets, atol=5e-5)
    assert np.median(np.abs(ctrl[:, scene.joints] - targets)) < 1e-6
    fingers = control.finger_target_m(arm, action[:, 6])
    np.testing.assert_allclose(ctrl[:, scene.fingers], np.stack([fingers] * len(arm.fingers), 1), atol=1e-8)


def copy_state(source: TabletopWorld, target: TabletopWorld) -> None:
    for name, values in source.sim.state.items():
        target.sim.state[name].copy_(values)
        target.sim._sound[name].copy_(values)
    target.sim._place()


@pytest.fixture(scope="module")
def pair() -> tuple[TabletopWorld, WarpTabletopWorld]:
    """Operation by operation, and by kernels, both on Warp."""
    short = replace(REWARDED, max_steps=18)
    return TabletopWorld(len(SPECS), short, make_simulator), WarpTabletopWorld(len(SPECS), short, make_simulator)


def test_chunks_are_what_single_operations_make_of_them(pair: tuple[TabletopWorld, WarpTabletopWorld]) -> None:
    one_by_one, kernels = pair
    for world in pair:
        world.reset_to(SPECS, range(len(SPECS)))
    actions = busy_actions(len(SPECS), 20, seed=3)
    for first in range(0, 20, 4):
        expected, ours = (world.step_chunk(actions[:, first : first + 4]) for world in pair)
        np.testing.assert_array_equal(ours.num_steps, expected.num_steps)
        for name in ("terminated", "truncated", "success"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(expected, name), err_msg=name)
        assert ours.failure == expected.failure
        for name in ("states", "localization", "reward"):
            off = (getattr(ours, name) - getattr(expected, name)).abs().flatten()
            assert off.median() < 1e-6, name
            assert off.quantile(0.8) < 1e-4, f"{name}: a push or a blow magnifies a rounding error, in few worlds"
        copy_state(one_by_one, kernels)
    assert ours.truncated.any()


def test_all_frames_of_a_chunk_end_like_the_chunk(pair: tuple[TabletopWorld, WarpTabletopWorld]) -> None:
    _, world = pair
    actions = busy_actions(len(SPECS), 3)
    results = []
    for all_frames in (False, True):
        world.reset_to(SPECS, range(len(SPECS)))
        results.append(world.step_chunk(actions, all_frames=all_frames))
    whole, by_action = results
    assert torch.equal(whole.states, by_action.states)
    assert torch.equal(whole.reward, by_action.reward)
    np.testing.assert_array_equal(whole.num_steps, by_action.num_steps)


def test_a_chunk_longer_than_a_graph_goes_on_where_the_first_graph_ended(
    pair: tuple[TabletopWorld, WarpTabletopWorld], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, world = pair
    actions = busy_actions(len(SPECS), 5)
    world.reset_to(SPECS, range(len(SPECS)))
    parts = [world.step_chunk(actions[:, :4]), world.step_chunk(actions[:, 4:])]
    monkeypatch.setattr("envs.tabletop.kernels.world._MOST_ACTIONS", 2)
    world.reset_to(SPECS, range(len(SPECS)))
    whole = world.step_chunk(actions)
    assert torch.equal(whole.states, torch.cat([part.states for part in parts], 1))
    np.testing.assert_array_equal(whole.num_steps, sum(part.num_steps for part in parts))


def test_every_task_is_told_apart() -> None:
    """A task added to EVERY_TASK needs a rule in kernels/task_rules.py, and is tested above once it is in a suite."""
    assert {task for suite in SUITES.values() for task in suite} == set(EVERY_TASK)
