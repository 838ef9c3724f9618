"""Worlds on MuJoCo Warp, on its CPU device: tensors without copies, resets by mask, broken physics, what is refused."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import mujoco_warp
import numpy as np
import pytest
import torch
from tables import BLIND, begin, busy_actions, spec

from envs.arrays import to_numpy
from envs.make import make_world
from envs.simulation.warp import WarpSim
from envs.tabletop.world import SUBSTEPS, TabletopWorld
from envs.types import ChunkResult
from envs.world import observation_space

VICTIM = 1
SPECS = [spec("pick_place", 6), spec("stack", 6), spec("press_button", 6)]


@pytest.fixture(scope="module")
def world() -> Iterator[TabletopWorld]:
    made = make_world("tabletop", 3, "warp")
    assert isinstance(made, TabletopWorld)
    yield made
    made.close()


def bits(world: TabletopWorld, worlds: list[int]) -> dict[str, torch.Tensor]:
    """All that the physics of these worlds goes on from, and what they show."""
    state = {name: values[worlds].clone() for name, values in world.sim.state.items()}
    frames = {f"frames {name}": frames.clone() for name, frames in world.sim.render(worlds).items()}
    return state | frames | {"observed": world._state[worlds].clone()}


def assert_same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    for name, values in ours.items():
        assert torch.equal(values, theirs[name]), name


def test_fields_share_memory_with_warps_arrays(world: TabletopWorld) -> None:
    begin(world, SPECS)
    sim, model = world.sim, world.scene.model
    for name, tensor in sim.field.items():
        assert tensor.data_ptr() == getattr(sim._data, name).ptr
    for name, tensor in sim.model_field.items():
        assert tensor.data_ptr() == getattr(sim._model, name).ptr
        assert tensor.shape == (3, *getattr(model, name).shape)
    sim.field["ctrl"][2, 5] = 0.125
    assert sim._data.ctrl.numpy()[2, 5] == 0.125


def test_observations_are_tensors_within_the_observation_space(world: TabletopWorld) -> None:
    observation, info = world.reset(seed=3)
    for array in (*observation["frames"].values(), observation["state"], info["localization"]):
        assert isinstance(array, torch.Tensor)
        assert array.device.type == "cpu"
    on_host = observation | {
        "frames": {name: to_numpy(frames) for name, frames in observation["frames"].items()},
        "state": to_numpy(observation["state"]),
    }
    assert world.observation_space.contains(on_host)
    assert isinstance(world.expert_action(), torch.Tensor)


def test_a_spec_gives_the_same_episode_at_any_index(world: TabletopWorld) -> None:
    begin(world, SPECS)
    straight = bits(world, [0, 1, 2])
    begin(world, SPECS[::-1])
    assert_same(straight, bits(world, [2, 1, 0]))


def test_resetting_by_mask_leaves_the_other_worlds_bit_identical(world: TabletopWorld) -> None:
    begin(world, SPECS)
    world.step_chunk(torch.from_numpy(busy_actions(3, 1)))
    before, old = bits(world, [0, 2]), world.episode(1)
    mask = np.array([False, True, False])
    observation, _ = world.reset(options={"specs": [spec("lift", 4)], "reset_mask": mask})
    assert_same(before, bits(world, [0, 2]))
    assert world.episode(1) != old
    assert observation["instruction"][1] == world.episode(1).instruction


def run(world: TabletopWorld, sabotage: dict[str, tuple[int, float]]) -> list[ChunkResult]:
    """One step, then bad numbers written into the victim, then two steps: the results of the latter."""
    begin(world, SPECS)
    actions = busy_actions(3, 3)
    world.step_chunk(actions[:, :1])
    for name, (index, value) in sabotage.items():
        world.sim.field[name][VICTIM, index] = value
    return [world.step_chunk(actions[:, i : i + 1]) for i in (1, 2)]


def test_invalid_physics_ends_only_its_own_episode(world: TabletopWorld) -> None:
    sound = run(world, {})
    neighbours = [0, 2]
    sound_state = bits(world, neighbours)
    assert sound[-1].failure == (None,) * 3
    for sabotage in ({"qpos": (2, np.nan)}, {"qpos": (9, np.inf)}, {"qvel": (3, 1e12)}, {"qvel": (0, 3e5)}):
        broken = run(world, sabotage)
        assert broken[0].failure == (None, "non-finite physics", None), sabotage
        assert broken[0].terminated.tolist() == [False, True, False]
        assert broken[1].num_steps.tolist() == [1, 0, 1]
        assert_same(sound_state, bits(world, neighbours))
        states = observation_space(world.world_spec)["state"]
        for ours, theirs in zip(broken, sound, strict=True):
            assert torch.equal(ours.states[neighbours], theirs.states[neighbours])
            assert torch.equal(ours.localization[neighbours], theirs.localization[neighbours])
            assert states.contains(to_numpy(ours.observation["state"][VICTIM]))
        # It holds still where it last was sound, and goes on showing it.
        for camera, frames in broken[0].observation["frames"].items():
            assert torch.equal(frames[VICTIM], broken[1].observation["frames"][camera][VICTIM])
    for ours, theirs in zip(run(world, {}), sound, strict=True):
        assert torch.equal(ours.states, theirs.states), "a broken world begins its next episode like any other"


def test_a_captured_graph_gives_the_results_of_its_single_launches(world: TabletopWorld) -> None:
    begin(world, SPECS)
    sim, actions = world.sim, busy_actions(3, 8)
    for step in range(8):
        world.step_chunk(actions[:, step : step + 1])
        before = {name: values.clone() for name, values in sim.state.items()}
        sim.launch("steps", lambda: sim._steps(SUBSTEPS))
        as_graph = {name: values.clone() for name, values in sim.state.items()}
        for name, values in before.items():
            sim.state[name].copy_(values)
        for _ in range(SUBSTEPS):
            mujoco_warp.step(sim._model, sim._data)
        assert_same(as_graph, sim.state)
        assert not torch.equal(before["qpos"], as_graph["qpos"])


def test_torch_and_numpy_actions_have_the_same_effect(world: TabletopWorld) -> None:
    actions, states = busy_actions(3, 1), []
    for given in (actions, torch.from_numpy(actions)):
        begin(world, SPECS)
        states.append(world.step_chunk(given).states)
    assert torch.equal(*states)
    bad = torch.zeros(3, 1, 7)
    bad[1, 0, 3] = torch.inf
    with pytest.raises(ValueError, match="action 'rot_x' of world 1, step 0 of the chunk, is inf"):
        world.step_chunk(bad)


def with_room_for(**limits: int) -> TabletopWorld:
    room: dict[str, Any] = {"max_contacts": 64, "max_constraints": 256} | limits
    world = TabletopWorld(3, BLIND, functools.partial(WarpSim, **room))
    begin(world, SPECS)
    return world


def test_an_overflow_of_the_contact_buffer_raises_an_error() -> None:
    world = with_room_for(max_contacts=2)
    with pytest.raises(RuntimeError, match="3 simulations had more contacts than max_contacts=2"):
        world.step_chunk(np.zeros((3, 1, 7), np.float32))


def test_an_overflow_of_a_constraint_buffer_fails_only_its_worlds() -> None:
    world = with_room_for(max_constraints=24)
    result = world.step_chunk(np.zeros((3, 1, 7), np.float32))
    assert result.failure == ("non-finite physics", "non-finite physics", None), "three objects rest on the first two"


def test_devices_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ValueError, match="device 'tpu' does not exist; devices: cpu, warp, cuda"):
        make_world("tabletop", 2, "tpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_cuda_without_a_gpu_is_refused_before_anything_is_compiled() -> None:
    with pytest.raises(ValueError, match="device 'cuda' needs an NVIDIA GPU"):
        make_world("tabletop", 2, "cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_results_of_warps_cpu_device(world: TabletopWorld) -> None:
    gpu = make_world("tabletop", 3, "cuda")
    actions = busy_actions(3, 4)
    results = []
    for one in (world, gpu):
        one.reset_to(SPECS, [0, 1, 2])
        results.append([one.step_chunk(actions[:, i : i + 1]) for i in range(4)][-1])  # the second chunk is a graph
    assert results[1].states.device.type == "cuda"
    np.testing.assert_allclose(to_numpy(results[1].states), to_numpy(results[0].states), atol=1e-3)
    for camera, frames in results[0].observation["frames"].items():
        ours, theirs = to_numpy(frames).astype(int), to_numpy(results[1].observation["frames"][camera])
        assert np.abs(ours - theirs).mean() < 1
    gpu.close()
