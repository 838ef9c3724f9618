"""Keyframes and waypoints of recorded episodes: prediction targets of vla_model/heads/foresight.py.

    keyframe   a row at which the gripper command switches between open and close (James & Davison 2022, "Q-attention")
    waypoint   a keyframe, or a turn of the hand's path: a point kept by the Ramer (1972), Douglas & Peucker (1973)
               algorithm on the path between two keyframes

That algorithm keeps the point farthest from the straight line between two points, if farther than a tolerance, and
recurses into both halves. (Shi et al. 2023, "Waypoint-Based Imitation Learning", choose the fewest waypoints within the
same error.) The tolerance is relative to the episode's extent, so it has no unit.

Shape letters: R rows, T steps of an episode, D dimensions.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from envs.types import WorldSpec
from rollout.dataset.frame_cache import CachedDataset

TOLERANCE = 0.15
"""As a share of the diagonal of the path's bounding box. Chosen so that the first waypoint depends on the object's
position even where the first keyframe does not: Meta-World's soccer and box-close (docs/results/keyframes.md)."""
NEVER = np.iinfo(np.int64).max
"""A row index after all rows."""


def keyframes(dataset: CachedDataset, world_spec: WorldSpec) -> NDArray[np.int64]:
    """The rows at which a gripper command switches between open and close, ascending, followed by NEVER."""
    closing = dataset.vectors["action"][:, world_spec.action.grippers] > 0  # [R, grippers]
    return np.append(np.flatnonzero((closing[1:] != closing[:-1]).any(1)) + 1, NEVER)


def waypoints(dataset: CachedDataset, world_spec: WorldSpec) -> NDArray[np.int64]:
    """The keyframes and the rows at which the hand's path turns, ascending, followed by NEVER."""
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
    """Indices of the points between the first and the last to keep, ascending, so that every point is within
    `tolerance` of the polyline.

    Args:
        path: [T, D].
        tolerance: in the unit of the path.
    """
    turns, halves = [], [(0, len(path) - 1)]
    while halves:
        first, last = halves.pop()
        if last - first < 2:
            continue
        line, from_first = path[last] - path[first], path[first + 1 : last] - path[first]
        share = np.clip(from_first @ line / max(line @ line, np.finfo(float).tiny), 0, 1)  # along it, [points between]
        distance = np.linalg.norm(from_first - share[:, None] * line, axis=1)
        if distance.max() > tolerance:
            turn = first + 1 + int(distance.argmax())
            turns.append(turn)
            halves += [(first, turn), (turn, last)]
    return sorted(turns)


def next_of(sorted_rows: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each of `rows` the first of `sorted_rows` after it."""
    return sorted_rows[np.searchsorted(sorted_rows, rows, side="right")]
