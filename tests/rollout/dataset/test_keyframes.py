"""Keyframes and waypoints of recorded episodes, on paths drawn by hand."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from fake_world import WORLD_SPEC, CountingPolicy, FakeWorld, fake_spec

from envs.types import VectorSpec
from rollout.collect import collect
from rollout.dataset.batches import TrainingData
from rollout.dataset.frame_cache import open_cache
from rollout.dataset.keyframes import NEVER, keyframes, next_of, waypoints
from rollout.dataset.keyframes import turns_of as turns
from rollout.dataset.write import DatasetWriter
from vla_model.config import Foreseen

STATE = VectorSpec(
    names=("step", "hand_x", "hand_y", "hand_z"),
    units=("1", "m", "m", "m"),
    low=(-9.0,) * 4,
    high=(9.0,) * 4,
    position=(1, 2, 3),
)
SPEC = dataclasses.replace(WORLD_SPEC, state=STATE)
# Along x, then back up along y: it turns at step 2. It closes at step 4, from where it goes straight on.
PATH = np.array([(0, 0, 0), (1, 0, 0), (2, 0, 0), (2, 1, 0), (2, 2, 0), (2, 3, 0), (2, 4, 0)], np.float32)
GRIP = [-1.0, -1.0, -1.0, -1.0, 1.0, 1.0, 1.0]


def record(root: Path, seeds: tuple[int, ...]) -> None:
    """An episode of seed s has 3 + s % 5 steps."""
    with DatasetWriter(root, SPEC, robot_type="fake") as writer:
        for t in collect(CountingPolicy(3), FakeWorld(2), [fake_spec(s) for s in seeds], all_frames=True):
            n = t.num_steps
            label = np.column_stack((t.label[:, :-1], np.array(GRIP[:n], np.float32)))
            writer.append(
                dataclasses.replace(t, state=np.column_stack((np.arange(n), PATH[:n])).astype(np.float32), label=label)
            )


def test_a_straight_path_has_no_turn_and_a_corner_is_one() -> None:
    line = np.linspace((0.0, 0.0), (3.0, 6.0), 7)
    assert turns(line, 0.01) == []
    corner = np.array([(0.0, 0.0), (1.0, 0.0), (2.0, 0.0), (2.0, 1.0), (2.0, 2.0)])
    assert turns(corner, 1.4) == [2]  # it lies sqrt(2) beside the straight way
    assert turns(corner, 1.5) == []


def test_turns_are_found_of_halves_too_and_of_ways_that_end_where_they_began() -> None:
    square = np.array([(0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0), (0, 0)], np.float64)
    assert turns(square, 0.5) == [2, 4, 6]
    assert turns(np.zeros((5, 2)), 0.0) == []
    assert turns(np.zeros((1, 2)), 0.0) == turns(np.zeros((2, 2)), 0.0) == []


def test_a_point_beyond_the_end_of_a_way_is_as_far_as_that_end() -> None:
    there_and_back = np.array([(0.0, 0.0), (5.0, 0.0), (1.0, 0.0)])
    assert turns(there_and_back, 3.9) == [1]
    assert turns(there_and_back, 4.0) == []


@pytest.mark.parametrize("seed", range(3))
def test_no_point_is_farther_than_the_tolerance_from_what_is_kept(seed: int) -> None:
    path = np.random.default_rng(seed).normal(size=(60, 3)).cumsum(0)
    kept = [0, *turns(path, 2.0), 59]
    for first, last in pairwise(kept):
        share = np.linspace(0.0, 1.0, 2001)[:, None]
        way = path[first] + share * (path[last] - path[first])  # [2001, 3]
        nearest = np.linalg.norm(path[first : last + 1, None] - way, axis=-1).min(1)
        assert nearest.max() <= 2.0 + 1e-2
    assert len(kept) < 40


def test_keyframes_are_changes_of_the_gripper_and_waypoints_turns_of_the_hand_too(tmp_path: Path) -> None:
    record(tmp_path / "a", (4, 0))  # 7 and 3 steps
    dataset = open_cache(tmp_path / "a")
    assert [episode["length"] for episode in dataset.episodes] in ([7, 3], [3, 7])
    start = 0 if dataset.episodes[0]["length"] == 7 else 3
    inside = [row for row in keyframes(dataset, SPEC) if start < row < start + 7]
    assert inside == [start + 4]
    assert [row for row in waypoints(dataset, SPEC) if start < row < start + 7] == [start + 2, start + 4]
    assert keyframes(dataset, SPEC)[-1] == waypoints(dataset, SPEC)[-1] == NEVER
    short = 7 if start == 0 else 0
    assert not [row for row in waypoints(dataset, SPEC) if short < row < short + 3], "a straight way, gripper open"


def test_of_straight_ways_alone_the_waypoint_is_the_end(tmp_path: Path) -> None:
    record(tmp_path / "a", (0,))
    np.testing.assert_array_equal(waypoints(open_cache(tmp_path / "a"), SPEC), [NEVER])


def test_a_batch_has_the_state_at_the_next_keyframe_the_end_and_the_next_waypoint(tmp_path: Path) -> None:
    record(tmp_path / "a", (4, 0))
    data = TrainingData([tmp_path / "a"])
    batch = data.gather(np.arange(data.num_rows), 2, foreseen=Foreseen((1,), keyframes=True, waypoints=True))
    assert batch.future_state is not None
    expected = {7: ([4, 4, 4, 4, 6, 6, 6], [2, 2, 4, 4, 6, 6, 6]), 3: ([2, 2, 2], [2, 2, 2])}
    for i in range(data.num_rows):
        length, step = data.episodes[batch.episode[i]]["length"], int(batch.state[i, 0])
        key, way = (each[step] for each in expected[length])
        np.testing.assert_array_equal(batch.future_state[i, :, 0], [min(step + 1, length - 1), key, length - 1, way])
        np.testing.assert_array_equal(batch.future_state[i, :, 1:], PATH[batch.future_state[i, :, 0].astype(int)])


def test_the_next_row_is_after_and_not_at() -> None:
    np.testing.assert_array_equal(next_of(np.array([2, 5, NEVER]), np.array([0, 2, 4, 5])), [2, 5, 5, NEVER])
