"""Training batches: what is in them, that they come again after a resume, and the cache that they are read from."""

from __future__ import annotations

import dataclasses
import shutil
import threading
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from edits import DATA, actions_of
from fake_world import WORLD_SPEC, CountingPolicy, FakeWorld, episode_length, fake_spec, succeeds

from envs.types import CameraSpec
from rollout.collect import collect
from rollout.dataset import batches, frame_cache
from rollout.dataset.batches import Batch, BatchStream, TrainingData
from rollout.dataset.schema import ImageMode
from rollout.dataset.write import DatasetWriter
from rollout.expert import ExpertPolicy
from rollout.types import Trajectory
from vla_model.config import Foreseen


def write(root: Path, seeds: Iterable[int], image_mode: ImageMode = "image") -> dict[int, Trajectory]:
    world = FakeWorld(2)
    found = collect(CountingPolicy(3), world, [fake_spec(s) for s in seeds], all_frames=True)
    recorded = {t.spec.seed: t for t in found}
    with DatasetWriter(root, WORLD_SPEC, robot_type="fake", image_mode=image_mode) as writer:
        for seed in seeds:
            writer.append(recorded[seed])
    return recorded


def assert_same(a: Batch, b: Batch) -> None:
    for field in dataclasses.fields(Batch):
        x, y = getattr(a, field.name), getattr(b, field.name)
        if x is None or y is None:
            assert x is y, field.name
            continue
        for key in x if isinstance(x, dict) else [...]:
            np.testing.assert_array_equal(x[key], y[key], err_msg=field.name)


def test_a_batch_holds_the_recorded_rows_and_masks_what_lies_beyond_the_end(tmp_path: Path) -> None:
    recorded = write(tmp_path / "a", range(4)) | write(tmp_path / "b", range(4, 7))
    data = TrainingData([tmp_path / "a", tmp_path / "b"])
    assert data.num_rows == sum(episode_length(s) for s in range(7))
    batch = data.gather(np.random.default_rng(0).permutation(data.num_rows), 4)
    seen = set()
    for i in range(data.num_rows):
        row = data.episodes[batch.episode[i]]
        t, step = recorded[row["seed"]], int(batch.state[i, 0])
        seen.add((row["seed"], step))
        for camera in t.frames:
            np.testing.assert_array_equal(batch.frames[camera][i], t.frames[camera][step])
        np.testing.assert_array_equal(batch.localization[i], t.localization[step])
        assert data.instructions[batch.instruction_id[i]] == t.instruction
        left = t.num_steps - step
        np.testing.assert_array_equal(batch.mask[i], np.arange(4) < left)
        np.testing.assert_array_equal(batch.ended[i], (np.arange(4) >= left) & t.success)
        expected = [t.label[min(step + k, t.num_steps - 1)] for k in range(4)]
        np.testing.assert_array_equal(batch.action[i], expected)
    assert len(seen) == data.num_rows


def test_what_is_foreseen_is_what_the_state_became_and_at_the_end_stayed(tmp_path: Path) -> None:
    recorded = write(tmp_path / "a", range(6))
    data = TrainingData([tmp_path / "a"])
    rows = np.arange(data.num_rows)
    batch = data.gather(rows, 2, foreseen=Foreseen((1, 3)))
    assert batch.future_state is not None
    assert batch.future_known is not None
    for i in rows:
        t = recorded[data.episodes[batch.episode[i]]["seed"]]
        step = int(batch.state[i, 0])
        expected = [t.state[min(step + h, t.num_steps - 1)] for h in (1, 3)]
        np.testing.assert_array_equal(batch.future_state[i], expected)
        assert batch.future_known[i] == t.success, "where one failed there is nothing to foresee"
    assert 0 < batch.future_known.sum() < data.num_rows
    with data.batches(4, 2, seed=0, foreseen=Foreseen((1, 3))) as stream:
        assert_same(next(stream), data.gather(data.rows_at(0, 4, seed=0), 2, foreseen=Foreseen((1, 3))))


def test_keyframes_are_where_the_gripper_s_command_changes_and_the_end(tmp_path: Path) -> None:
    grips = [-1.0, -0.2, 0.3, 1.0, 0.1, 0.0, -1.0]  # it closes at step 2 and opens at 5
    states = {}
    for folder, seeds in (("a", (4, 2)), ("b", (3,))):  # episodes of 7, 5 and 6 steps
        with DatasetWriter(tmp_path / folder, WORLD_SPEC, robot_type="fake") as writer:
            for t in collect(CountingPolicy(3), FakeWorld(2), [fake_spec(s) for s in seeds], all_frames=True):
                states[t.spec.seed] = t.state
                label = np.column_stack((t.label[:, :-1], np.array(grips[: t.num_steps], np.float32)))
                writer.append(dataclasses.replace(t, label=label))
    data = TrainingData([tmp_path / "a", tmp_path / "b"])
    batch = data.gather(np.random.default_rng(0).permutation(data.num_rows), 2, foreseen=Foreseen((2,), keyframes=True))
    assert batch.future_state is not None
    nexts = {4: [2, 2, 5, 5, 5, 6, 6], 2: [2, 2, 4, 4, 4], 3: [2, 2, 5, 5, 5, 5]}
    for i in range(data.num_rows):
        seed, step = data.episodes[batch.episode[i]]["seed"], int(batch.state[i, 0])
        end = len(nexts[seed]) - 1
        expected = states[seed][[min(step + 2, end), nexts[seed][step], end]]
        np.testing.assert_array_equal(batch.future_state[i], expected)


def test_without_a_gripper_the_next_keyframe_is_the_end(tmp_path: Path) -> None:
    spec = dataclasses.replace(WORLD_SPEC, action=dataclasses.replace(WORLD_SPEC.action, names=("dx", "dy", "dz")))
    with DatasetWriter(tmp_path / "a", spec, robot_type="fake") as writer:
        (trajectory,) = collect(CountingPolicy(3), FakeWorld(1, spec), [fake_spec(0)], all_frames=True)
        writer.append(trajectory)
    batch = TrainingData([tmp_path / "a"]).gather(np.arange(2), 2, foreseen=Foreseen(keyframes=True))
    assert batch.future_state is not None
    np.testing.assert_array_equal(batch.future_state, np.broadcast_to(trajectory.state[-1], (2, 2, 2)))


def test_failures_that_are_only_seen_have_nothing_to_imitate(tmp_path: Path) -> None:
    write(tmp_path / "a", range(6))
    data = TrainingData([tmp_path / "a"], failed="auxiliary")
    batch = data.gather(np.arange(data.num_rows), 2)
    won = np.array([succeeds(data.episodes[e]["seed"]) for e in batch.episode])
    assert 0 < won.sum() < data.num_rows == TrainingData([tmp_path / "a"]).num_rows
    np.testing.assert_array_equal(batch.mask[:, 0], won)


def test_of_datasets_that_are_only_seen_nothing_is_imitated_and_statistics_are_not_theirs(tmp_path: Path) -> None:
    demonstrated, seen = write(tmp_path / "a", range(3)), write(tmp_path / "b", range(3, 8))
    data = TrainingData([tmp_path / "a"], auxiliary=[tmp_path / "b"])
    batch = data.gather(np.arange(data.num_rows), 2)
    seeds = np.array([data.episodes[e]["seed"] for e in batch.episode])
    assert set(seeds) == {*demonstrated, *seen}
    np.testing.assert_array_equal(batch.mask[:, 0], seeds < 3)
    for seed, step, label in zip(seeds, batch.state[:, 0], batch.localization, strict=True):
        np.testing.assert_array_equal(label, (demonstrated | seen)[seed].localization[int(step)])
    assert data.stats["action"]["count"] == sum(t.num_steps for t in demonstrated.values())


def test_of_long_episodes_evenly_spaced_rows_are_learned_with_the_actions_that_followed(tmp_path: Path) -> None:
    recorded = write(tmp_path / "a", range(6))
    data = TrainingData([tmp_path / "a"], rows_per_episode=3)
    batch = data.gather(np.arange(data.num_rows), 2)
    for number, row in enumerate(data.episodes):
        t = recorded[row["seed"]]
        steps = [i * t.num_steps // min(3, t.num_steps) for i in range(min(3, t.num_steps))]
        mine = batch.episode == number
        assert batch.state[mine, 0].tolist() == steps
        for step, action, mask in zip(steps, batch.action[mine], batch.mask[mine], strict=True):
            assert mask.tolist() == [True, step + 1 < t.num_steps]
            np.testing.assert_array_equal(action[mask], t.action[step : step + 2])
    assert any(episode_length(s) > 3 for s in range(6))


def test_rows_come_with_the_rows_before_them_of_the_same_episode(tmp_path: Path) -> None:
    recorded = write(tmp_path / "a", range(4)) | write(tmp_path / "b", range(4, 7))
    data = TrainingData([tmp_path / "a", tmp_path / "b"])
    rows = np.random.default_rng(0).permutation(data.num_rows)
    batch, plain = data.gather(rows, 2, history=(2, 2)), data.gather(rows, 2)
    assert plain.past_frames is None and plain.past_state is None
    assert_same(dataclasses.replace(batch, past_frames=None, past_state=None), plain)
    assert batch.past_frames is not None and batch.past_state is not None
    for i in range(data.num_rows):
        t, step = recorded[data.episodes[batch.episode[i]]["seed"]], int(batch.state[i, 0])
        before = [max(step - 4, 0), max(step - 2, 0)]
        np.testing.assert_array_equal(batch.past_state[i], t.state[before])
        for camera in t.frames:
            np.testing.assert_array_equal(batch.past_frames[camera][i], t.frames[camera][before])
    with data.batches(6, 2, seed=1, history=(2, 2), part=(1, 2)) as stream:
        assert_same(next(stream), data.gather(data._by_dataset(data.rows_at(0, 6, seed=1))[1::2], 2, history=(2, 2)))


def test_labels_are_taught_and_not_what_was_executed(tmp_path: Path) -> None:
    world = FakeWorld(1)
    policy = ExpertPolicy(world, noise_std=0.5, noise_share=1.0)
    with DatasetWriter(tmp_path / "a", WORLD_SPEC, robot_type="fake") as writer:
        for t in collect(policy, world, [fake_spec(1)]):
            writer.append(t)
    batch = TrainingData([tmp_path / "a"]).gather(np.arange(4), 1)
    np.testing.assert_allclose(batch.action[:, 0, 0], 0.1, rtol=1e-6)


def test_a_run_resumed_at_a_step_sees_the_same_batches(tmp_path: Path) -> None:
    write(tmp_path / "a", range(5))
    with TrainingData([tmp_path / "a"]).batches(8, 3, seed=1) as stream:
        first = list(islice(stream, 9))
    with TrainingData([tmp_path / "a"]).batches(8, 3, seed=1, start_step=5, prefetch=1) as stream:
        for batch in first[5:]:
            assert_same(batch, next(stream))
    with TrainingData([tmp_path / "a"]).batches(8, 3, seed=2) as stream:
        assert not np.array_equal(next(stream).state, first[0].state)


def test_batches_do_not_depend_on_the_order_in_which_episodes_were_stored(tmp_path: Path) -> None:
    write(tmp_path / "a", range(5))
    write(tmp_path / "b", range(4, -1, -1))
    one, other = TrainingData([tmp_path / "a"]), TrainingData([tmp_path / "b"])
    assert one.instructions == other.instructions
    rows = one.rows_at(3, 8, seed=1)
    assert_same(one.gather(rows, 3), other.gather(rows, 3))


def test_every_row_comes_once_per_epoch_in_a_new_order(tmp_path: Path) -> None:
    write(tmp_path / "a", range(5))
    data = TrainingData([tmp_path / "a"])
    rows = np.concatenate([data.rows_at(step, 7, seed=0) for step in range(2 * data.num_rows)])
    epochs = rows.reshape(14, data.num_rows)
    for epoch in epochs:
        assert sorted(epoch) == list(range(data.num_rows))
    assert len({tuple(epoch) for epoch in epochs}) == len(epochs)


def test_frames_kept_as_images_and_as_video_are_trained_on_together(tmp_path: Path) -> None:
    write(tmp_path / "a", range(3))
    write(tmp_path / "b", range(3, 6), image_mode="video")
    data = TrainingData([tmp_path / "a", tmp_path / "b"])
    assert {row["seed"] for row in data.episodes} == set(range(6))
    frames = data.gather(np.arange(data.num_rows), 2).frames
    assert {name: rows.shape[0] for name, rows in frames.items()} == dict.fromkeys(frames, data.num_rows)


def test_failures_are_left_out_whole(tmp_path: Path) -> None:
    write(tmp_path / "a", range(30))
    successes = TrainingData([tmp_path / "a"], failed="excluded")
    assert {row["seed"] for row in successes.episodes} == {s for s in range(30) if succeeds(s)}


def test_the_cache_is_extended_when_the_dataset_grew_and_rebuilt_when_it_was_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[int] = []
    original = frame_cache.decode

    def noted(root: Path, info: dict[str, Any], episodes: list[tuple[int, dict[str, Any]]], *rest: Any) -> None:
        decoded.extend(row["seed"] for _, row in episodes)
        original(root, info, episodes, *rest)

    monkeypatch.setattr(frame_cache, "decode", noted)
    write(tmp_path / "a", range(3))
    early = TrainingData([tmp_path / "a"])
    kept = early.gather(np.arange(early.num_rows), 2)
    TrainingData([tmp_path / "a"])
    assert decoded == [0, 1, 2]
    write(tmp_path / "a", range(3, 5))
    grown = TrainingData([tmp_path / "a"])
    assert decoded == [0, 1, 2, 3, 4]
    assert grown.num_rows == sum(episode_length(s) for s in range(5))
    shutil.rmtree(tmp_path / "a")
    write(tmp_path / "a", range(10, 15))
    replaced = TrainingData([tmp_path / "a"])
    assert decoded[5:] == [10, 11, 12, 13, 14]
    assert replaced.gather(np.arange(1), 2).frames["front"][0, -1, -1, 0] == 10
    assert_same(kept, early.gather(np.arange(early.num_rows), 2))


def test_what_a_killed_process_left_in_the_cache_is_made_good(tmp_path: Path) -> None:
    write(tmp_path / "a", range(3))
    data = TrainingData([tmp_path / "a"])
    expected = data.gather(np.arange(data.num_rows), 2)
    cache = tmp_path / "a.cache"
    with (cache / "frames.front.bin").open("ab") as file:
        file.write(b"half a frame")
    write(tmp_path / "a", range(3, 4))
    extended = TrainingData([tmp_path / "a"])
    assert_same(expected, extended.gather(np.arange(data.num_rows), 2))
    assert extended.gather(np.array([data.num_rows]), 2).frames["front"][0, -1, -1, 0] == 3
    (cache / "frames.wrist.bin").unlink()
    assert_same(expected, TrainingData([tmp_path / "a"]).gather(np.arange(data.num_rows), 2))
    (cache / "manifest.json").unlink()
    assert_same(expected, TrainingData([tmp_path / "a"]).gather(np.arange(data.num_rows), 2))


def test_statistics_cover_all_datasets_and_their_absence_is_an_error(tmp_path: Path) -> None:
    recorded = [*write(tmp_path / "a", range(3)).values(), *write(tmp_path / "b", range(3, 8)).values()]
    stats = TrainingData([tmp_path / "a", tmp_path / "b"]).stats
    rows = np.concatenate([t.label for t in recorded])
    np.testing.assert_allclose(stats["action"]["mean"], rows.mean(0), rtol=1e-5)
    np.testing.assert_allclose(stats["action"]["std"], rows.std(0), rtol=1e-5)
    (tmp_path / "b/meta/stats.json").unlink()
    with pytest.raises(ValueError, match=r"stats\.json is missing"):
        _ = TrainingData([tmp_path / "a", tmp_path / "b"]).stats


def test_datasets_of_different_kinds_or_without_rows_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a", range(2))
    other = dataclasses.replace(WORLD_SPEC, cameras=(CameraSpec(name="front", height=32, width=24),))
    with DatasetWriter(tmp_path / "b", other, robot_type="fake") as writer:
        with pytest.raises(ValueError, match="has no episodes yet"):
            TrainingData([tmp_path / "b"])
        for t in collect(CountingPolicy(1), FakeWorld(1, other), [fake_spec(0)]):
            writer.append(t)
    with pytest.raises(ValueError, match=r"b is of another kind.*\n  camera 'front' is 32x24, expected 16x24"):
        TrainingData([tmp_path / "a", tmp_path / "b"])
    write(tmp_path / "c", range(0, 3, 3))
    with pytest.raises(ValueError, match=r"no episode of .* was selected"):
        TrainingData([tmp_path / "c"], failed="excluded")
    assert not list(tmp_path.glob("[bc].cache")), "nothing is decoded of what is refused"


def write_drives(root: Path, by_hand: dict[int, list[int]]) -> dict[int, Trajectory]:
    """Episodes of these seeds, in which a person acted in those steps."""
    world = FakeWorld(1)
    recorded = {
        t.spec.seed: t for t in collect(CountingPolicy(3), world, [fake_spec(s) for s in by_hand], all_frames=True)
    }
    with DatasetWriter(root, WORLD_SPEC, robot_type="fake", interventions=True) as writer:
        for seed, steps in by_hand.items():
            flags = np.isin(np.arange(episode_length(seed)), steps)
            writer.append(dataclasses.replace(recorded[seed], intervention=flags))
    return recorded


def test_of_drives_the_rows_by_hand_are_learned_and_whole_successes_without_any(tmp_path: Path) -> None:
    good, bad = [s for s in range(30) if succeeds(s)][:2], [s for s in range(30) if not succeeds(s)][:2]
    assert all(episode_length(s) >= 4 for s in (good[1], bad[1]))
    write(tmp_path / "demos", [30])
    write_drives(tmp_path / "drives", {good[0]: [], good[1]: [1], bad[0]: [], bad[1]: [0, 2, 3]})
    data = TrainingData([tmp_path / "demos"], drives=[tmp_path / "drives"])
    batch = data.gather(np.arange(data.num_rows), 2, history=(1, 1))
    seeds = [data.episodes[i]["seed"] for i in batch.episode]
    rows = {(seed, int(state)) for seed, state in zip(seeds, batch.state[:, 0], strict=True)}
    whole = {(s, step) for s in (30, good[0]) for step in range(episode_length(s))}
    assert rows == whole | {(good[1], 1), (bad[1], 0), (bad[1], 2), (bad[1], 3)}
    masks = {
        (seed, int(state)): mask.tolist()
        for seed, state, mask in zip(seeds, batch.state[:, 0], batch.mask, strict=True)
    }
    assert masks[bad[1], 0] == [True, False], "what the policy did next is nobody's lesson"
    assert masks[bad[1], 2] == [True, True]
    in_part = np.isin(seeds, bad)
    assert not batch.ended[in_part].any(), "where a person gave back, or failed, nothing ended well"
    assert batch.ended[~in_part].any()
    assert batch.past_state is not None
    (before,) = [
        int(past[0, 0])
        for seed, state, past in zip(seeds, batch.state[:, 0], batch.past_state, strict=True)
        if (seed, int(state)) == (bad[1], 2)
    ]
    assert before == 1, "what was seen before they took over was seen"
    assert data.stats["index"]["count"] == [episode_length(30)], "statistics are those of the demonstrations"


def test_the_stream_says_how_long_it_was_waited_for_and_passes_errors_on(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s, asked, made = 0.0, threading.Event(), threading.Event()

    def clock_s() -> float:
        read_s = now_s
        asked.set()
        return read_s

    def make(step: int) -> Batch:
        """The first one takes 5 s from when it is asked for; the third fails, when the second was put."""
        nonlocal now_s
        if step == 2:
            made.set()
            raise RuntimeError("the disk is gone")
        asked.wait()
        now_s = 5.0
        empty: dict[str, Any] = {field.name: np.zeros(0) for field in dataclasses.fields(Batch)}
        return Batch(**empty)

    monkeypatch.setattr(batches, "time", SimpleNamespace(perf_counter=clock_s))
    stream = BatchStream(make, 0, 2)
    next(stream)
    assert stream.wait_s == 5.0
    made.wait()
    next(stream)
    assert stream.wait_s == 5.0
    with pytest.raises(RuntimeError, match="the disk is gone"):
        next(stream)


def test_a_fingerprint_tells_other_rows_and_not_the_order_in_which_they_were_stored(tmp_path: Path) -> None:
    write(tmp_path / "a", range(3))
    write(tmp_path / "b", [2, 0, 1])
    (one,) = TrainingData([tmp_path / "a"]).fingerprint
    (other,) = TrainingData([tmp_path / "b"]).fingerprint
    assert one["sha256"] == other["sha256"]
    assert (one["episodes"], one["rows"]) == (3, 3 + 4 + 5)
    actions_of(tmp_path / "a" / DATA, lambda actions: actions.fill(0.5))
    assert TrainingData([tmp_path / "a"]).fingerprint[0]["sha256"] != one["sha256"]
    write(tmp_path / "b", [5])
    assert TrainingData([tmp_path / "b"]).fingerprint[0]["episodes"] == 4
