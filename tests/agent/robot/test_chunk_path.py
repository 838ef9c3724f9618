"""The path of chunks against hand-computed numbers. Two action dimensions: a displacement and a target."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from agent.robot.chunk_path import ChunkPath


def path_of(*, decay: float = 0.0, correction: float = 0.0, pace: float = 1.0) -> ChunkPath:
    path = ChunkPath(np.array([True, False]), decay=decay, correction=correction)
    path.pace = pace
    return path


def chunk(*displacements: float, targets: tuple[float, ...] | None = None) -> NDArray[np.float32]:
    return np.array([displacements, targets or (0.0,) * len(displacements)], np.float32).T


def move(path: ChunkPath) -> tuple[Any, Any]:
    """Execute the next move exactly."""
    action = path.next_action()
    assert action is not None
    path.moved(action)
    return pytest.approx(float(action[0]), abs=1e-6), pytest.approx(float(action[1]), abs=1e-6)


def test_overlapping_chunks_are_averaged_with_the_newest_observation_weighing_most() -> None:
    path = path_of(decay=0.5)
    path.add(path.mark(), chunk(0.0, 0.1, 0.2, 0.3))
    for _ in range(2):
        move(path)
    path.add(path.mark(), chunk(0.5, 0.6, targets=(1.0, 1.0)))
    # The older one is two moves older: weight 0.25 against 1.
    assert move(path) == ((0.25 * 0.2 + 0.5) / 1.25, 1 / 1.25)
    assert move(path) == ((0.25 * 0.3 + 0.6) / 1.25, 1 / 1.25)
    assert path.next_action() is None


def test_with_decay_0_only_the_newest_chunk_is_executed() -> None:
    path = path_of()
    path.add(path.mark(), chunk(0.0, 0.1, 0.2))
    move(path)
    path.add(path.mark(), chunk(0.7))
    assert move(path)[0] == 0.7
    assert move(path)[0] == 0.2


def test_a_deviation_from_a_late_chunks_path_is_corrected() -> None:
    """The observation is answered two moves later: "0.3 in each of two moves, then rest", but the arm made 0.1 and 0.1.
    It is 0.4 short, and makes up for half of what is left in each move.
    """
    path = path_of(correction=0.5)
    path.add(path.mark(), chunk(0.1, 0.1, 0.1))
    seen = path.mark()
    for _ in range(2):
        move(path)
    path.add(seen, chunk(0.3, 0.3, 0.0, 0.0, 0.0, 0.0))
    # Of two answers to one observation both weigh alike, so the older one goes first.
    path._chunks.pop(0)
    assert [move(path)[0] for _ in range(3)] == [0.2, 0.1, 0.05]


def test_without_a_deviation_there_is_no_correction() -> None:
    path = path_of(correction=0.5)
    path.add(path.mark(), chunk(0.1, -0.2, 0.3))
    assert [move(path)[0] for _ in range(3)] == [0.1, -0.2, 0.3]


def test_motion_that_a_limit_cut_is_caught_up() -> None:
    path = path_of(correction=1.0)
    path.add(path.mark(), chunk(0.4, 0.4, 0.0))
    path.moved(np.array([0.1, 0.0], np.float32))
    assert move(path)[0] == 0.4 + 0.3


def test_at_pace_one_half_a_path_takes_twice_as_long_with_interpolated_targets() -> None:
    path = path_of(pace=0.5)
    path.add(path.mark(), chunk(0.4, 0.2, targets=(-1.0, 1.0)))
    assert [move(path) for _ in range(4)] == [(0.2, -1.0), (0.2, -1.0), (0.1, 0.0), (0.1, 1.0)]
    assert path.next_action() is None


def test_a_move_across_two_actions_of_a_chunk_interpolates_them() -> None:
    path = path_of(pace=0.75)
    path.add(path.mark(), chunk(0.4, 0.8))
    assert [move(path)[0] for _ in range(2)] == [0.3, 0.25 * 0.4 + 0.5 * 0.8]
    assert path.next_action() is None, "half a move is left, and three quarters would be needed"


def test_a_two_valued_dimension_follows_the_newest_chunk_without_blending() -> None:
    path = ChunkPath(np.array([True, False]), decay=0.3, correction=0.5, two_valued=[1])
    path.add(path.mark(), chunk(0.0, 0.0, 0.0, 0.0, targets=(-1.0,) * 4))
    assert move(path) == (0.0, -1.0)
    path.add(path.mark(), chunk(0.0, 0.0, targets=(1.0, 1.0)))
    assert [move(path)[1] for _ in range(2)] == [1.0, 1.0]
    assert move(path)[1] == -1.0, "the older one alone reaches so far"


@pytest.mark.parametrize(
    ("pace", "targets"), [(0.5, [-1, -1, 1, 1, -1, -1]), (0.75, [-1, 1, -1, -1]), (0.4, [-1, -1, 1, 1, 1, -1, -1])]
)
def test_a_two_valued_target_is_that_of_the_current_move_at_any_pace(pace: float, targets: list[int]) -> None:
    path = ChunkPath(np.array([True, False]), decay=0.3, correction=0.5, two_valued=[1])
    path.pace = pace
    path.add(path.mark(), chunk(0.0, 0.0, 0.0, targets=(-1.0, 1.0, -1.0)))
    assert [move(path)[1] for _ in targets] == targets
    assert path.next_action() is None


def test_of_two_chunks_of_one_observation_the_later_one_sets_the_gripper() -> None:
    path = ChunkPath(np.array([True, False]), decay=0.3, correction=0.5, two_valued=[1])
    seen = path.mark()
    path.add(seen, chunk(0.0, targets=(-1.0,)))
    path.add(seen, chunk(0.0, targets=(1.0,)))
    assert move(path)[1] == 1.0


def test_an_executed_chunk_gives_no_action() -> None:
    path = path_of()
    seen = path.mark()
    path.add(seen, chunk(0.0, 0.0, 0.0))
    for _ in range(3):
        move(path)
    path.add(seen, chunk(1.0, 1.0, 1.0))
    assert path.next_action() is None


def test_a_cleared_path_has_no_action_and_keeps_counting_moves() -> None:
    path = path_of()
    seen = path.mark()
    path.add(seen, chunk(0.1, 0.2))
    move(path)
    path.clear()
    assert path.next_action() is None
    path.add(seen, chunk(0.1, 0.2))
    assert move(path)[0] == 0.2
