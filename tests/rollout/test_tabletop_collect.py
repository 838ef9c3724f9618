"""Collecting in the real world: the same checks as with the counting one, on a few episodes."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np

from envs.make import make_world
from envs.types import EpisodeSpec
from rollout.collect import collect
from rollout.dataset.batches import TrainingData
from rollout.dataset.read import DatasetReader
from rollout.dataset.write import DatasetWriter
from rollout.expert import ExpertPolicy
from rollout.types import Trajectory

SPECS = [EpisodeSpec(suite="tabletop", task=task, seed=seed) for task in ("reach", "push") for seed in (1, 2, 3)]


def demonstrate(num_worlds: int, specs: list[EpisodeSpec], device: str = "cpu") -> dict[str, Trajectory]:
    with closing(make_world("tabletop", num_worlds, device)) as world:
        return {t.spec.id: t for t in collect(ExpertPolicy(world, noise_std=0.2), world, specs)}


def test_demonstrations_depend_on_their_spec_alone_and_can_be_read_for_training(tmp_path: Path) -> None:
    few, many = demonstrate(1, SPECS), demonstrate(4, SPECS[::-1])
    assert few.keys() == many.keys() == {spec.id for spec in SPECS}
    for spec_id, t in few.items():
        other = many[spec_id]
        for name in ("state", "action", "label", "localization", "reward"):
            np.testing.assert_array_equal(getattr(t, name), getattr(other, name), err_msg=f"{spec_id} {name}")
        for camera, frames in t.frames.items():
            np.testing.assert_array_equal(frames, other.frames[camera], err_msg=f"{spec_id} {camera}")
        assert (t.instruction, t.success, t.failure) == (other.instruction, other.success, other.failure)
    assert any(not np.array_equal(t.action, t.label) for t in few.values())
    with closing(make_world("tabletop", 1)) as world:
        world_spec = world.world_spec
    with DatasetWriter(tmp_path / "a", world_spec, robot_type="tabletop") as writer:
        for t in few.values():
            writer.append(t)
    data = TrainingData([tmp_path / "a"])
    assert data.world_spec == world_spec
    batch = data.gather(data.rows_at(0, 16, seed=0), 8)
    assert batch.action.shape == (16, 8, world_spec.action.size)
    t = few[data.episodes[batch.episode[0]]["spec_id"]]
    (step,) = np.flatnonzero(np.all(t.state == batch.state[0], axis=1))[:1]
    np.testing.assert_array_equal(batch.frames["wrist"][0], t.frames["wrist"][step])


def test_a_stored_episode_replays_to_the_same_frames_states_and_outcome(tmp_path: Path) -> None:
    (original,) = demonstrate(1, [EpisodeSpec(suite="tabletop", task="lift", seed=4)]).values()
    with closing(make_world("tabletop", 1)) as world:
        with DatasetWriter(tmp_path, world.world_spec, robot_type="tabletop") as writer:
            writer.append(original)
        reader = DatasetReader(tmp_path)
        stored = reader.episode(0)
        observation, _ = world.reset_to([original.spec], [0])
        executed = stored.columns["executed_action"]
        for step, action in enumerate(executed):
            for camera, frames in stored.frames.items():
                np.testing.assert_array_equal(frames[step], observation["frames"][camera][0])
            np.testing.assert_array_equal(stored.columns["observation.state"][step], observation["state"][0])
            result = world.step_chunk(np.asarray(action, np.float32)[None, None])
            observation = result.observation
            assert result.done[0] == (step == len(executed) - 1)
            assert result.success[0] == (result.done[0] and original.success)


def test_worlds_on_warp_are_recorded_in_numpy_like_those_on_the_cpu() -> None:
    specs = [spec for spec in SPECS if spec.task == "reach"][:2]
    cpu, warp = demonstrate(2, specs), demonstrate(2, specs, device="warp")
    for spec_id, expected in cpu.items():
        t = warp[spec_id]
        assert (t.instruction, t.success, t.num_steps) == (expected.instruction, expected.success, expected.num_steps)
        assert t.success
        for name in ("state", "action", "label", "localization", "reward"):
            ours, theirs = getattr(t, name), getattr(expected, name)
            assert isinstance(ours, np.ndarray)
            assert ours.dtype == theirs.dtype
            np.testing.assert_allclose(ours, theirs, atol=1e-3, err_msg=f"{spec_id} {name}")
        for camera, frames in expected.frames.items():
            assert t.frames[camera].dtype == np.uint8
            assert np.abs(t.frames[camera].astype(int) - frames).mean() < 5
