"""Keyframes and waypoints of recorded episodes: the rows that tell where a motion goes (vla_model/heads/foresight.py).

    keyframe   where the gripper's command changes between opening and closing (James & Davison 2022, "Q-attention")
    waypoint   a keyframe, or where the hand's path turns: a point that the algorithm of Ramer (1972) and of Douglas &
               Peucker (1973) keeps of the path from one keyframe to the next

That algorithm keeps the point farthest from the straight way between two, if it is farther than a tolerance, and goes
on with both halves. (Shi et al. 2023, "Waypoint-Based Imitation Learning", choose waypoints by the same error, as few
as it allows.) The tolerance is a share of the episode's extent, so that it needs no unit.

Shape letters: R rows, T steps of an episode, D dimensions.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from envs.types import WorldSpec
from rollout.dataset.frame_cache import CachedDataset

TOLERANCE = 0.15
"""Of the diagonal of the box that an episode's path lies in. So the first waypoint tells of the object's place where
the gripper does not, in Meta-World's soccer and box-close (docs/results/keyframes.md)."""
NEVER = np.iinfo(np.int64).max
"""A row after all."""


def keyframes(dataset: CachedDataset, world_spec: WorldSpec) -> NDArray[np.int64]:
    """The rows whose action opens what the last row's closed or the other way round, ascending, and NEVER."""
    closing = dataset.vectors["action"][:, world_spec.action.grippers] > 0  # [R, grippers]
    return np.append(np.flatnonzero((closing[1:] != closing[:-1]).any(1)) + 1, NEVER)


def waypoints(dataset: CachedDataset, world_spec: WorldSpec) -> NDArray[np.int64]:
    """The keyframes and the rows where the hand's path turns, ascending, and NEVER."""
    hand = np.asarray(dataset.vectors["state"][:, world_spec.state.position], np.float64)
    changes = keyframes(dataset, world_spec)
    ends = np.cumsum([episode["length"] for episode in dataset.episodes])
    turns: list[int] = []
    for start, end in pairwise((0, *ends.tolist())):
        path = hand[start:end]
        within = changes[(changes > start) & (changes < end - 1)]
        tolerance = TOLERANCE * float(np.linalg.norm(np.ptp(path, axis=0)))
        for first, last in pairwise((start, *within.tolist(), end - 1)):
            turns += [first + step for step in turns_of(hand[first : last + 1], tolerance)]
    return np.union1d(np.array(turns, np.int64), changes)


def turns_of(path: NDArray[np.float64], tolerance: float) -> list[int]:
    """Which points between the first and the last are to be kept, ascending, that none is farther than `tolerance` from
    the straight ways between them.

    Args:
        path: [T, D].
        tolerance: in the path's unit.
    """
    turns, halves = [], [(0, len(path) - 1)]
    while halves:
        first, last = halves.pop()
        if last - first < 2:
            continue
        way, from_first = path[last] - path[first], path[first + 1 : last] - path[first]
        share = np.clip(from_first @ way / max(way @ way, np.finfo(float).tiny), 0, 1)  # of the way, [points between]
        distance = np.linalg.norm(from_first - share[:, None] * way, axis=1)
        if distance.max() > tolerance:
            turn = first + 1 + int(distance.argmax())
            turns.append(turn)
            halves += [(first, turn), (turn, last)]
    return sorted(turns)


def next_of(sorted_rows: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each of `rows` the first of `sorted_rows` after it."""
    return sorted_rows[np.searchsorted(sorted_rows, rows, side="right")]
