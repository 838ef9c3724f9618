"""Where a thing can be grasped from above, from the points of its surface alone.

For each of 12 horizontal closing directions c and a few depths below the top, the thing's points above the fingertips
in a strip as wide as a finger are projected onto c. Maximal intervals without a gap are the solid parts that the
fingers could close on: the whole of a can, one wall of a bowl, the handle of a mug. An interval is a candidate if

- it is narrower than the open fingers,
- the two slots beside it, into which the fingers descend, are free of the thing and of everything else, and
- nothing reaches into the volume of the hand above it.

Candidates are ranked by a cost: deep and near the centre of mass is good, a turn of the hand is bad.

Shape letters: P points of the thing, O points of everything else. Lengths in metres.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from envs.suites.libero.expert.motion import DOWN, hand_frame, hand_frames, rotation_vector
from envs.suites.libero.expert.view import Array

MAX_WIDTH_M = 0.072
"""Widest part that the fingers, 0.08 apart, close on."""
GAP_M = 0.022
"""Points further apart than this along the closing direction belong to two parts."""
FINGER_M = 0.010
"""Half the width of a finger, across the closing direction."""
FINGERTIP_M = 0.008
"""How far the fingertips reach below the grip site."""
SLOT_M = (0.040, 0.062)
"""Where the open fingers are, as distances from the grip site along the closing direction."""
HAND_M = (0.106, 0.034, 0.045)
"""Half length of the hand along the closing direction, half width across, height of its palm above the grip site."""
DEPTHS_M = (0.035, 0.025, 0.017, 0.010)
"""Heights of the grip site below the thing's top."""
LOWEST_M = 0.012
"""The grip site stays this far above the thing's lowest point."""
OFFSETS_M = (-0.025, 0.025)
"""Strips beside the middle, tried if those through the middle give few candidates."""
TURN_COST = 0.35
"""Of turning the hand to a grasp, per radian."""
NUM_DIRECTIONS = 12
MOST_POINTS = 2500


@dataclass(frozen=True)
class Grasp:
    """A pose of the hand at which to close the fingers."""

    point: Array
    """Of the grip site, [3]."""
    axes: Array
    """Of the hand, [3, 3]: closing axis, side, approach."""
    width: float
    """Of the part between the fingers."""
    cost: float

    @property
    def closing(self) -> Array:
        return self.axes[:, 0]


Preference = Callable[[Array, Array], float]
"""Extra cost of a grasp, from its point [3] and closing direction [3]."""


def intervals(values: Array) -> Iterator[tuple[float, float]]:
    """First and last of each run of sorted values without a gap of GAP_M."""
    if len(values):
        cuts = np.flatnonzero(np.diff(values) > GAP_M)
        yield from zip(values[np.r_[0, cuts + 1]], values[np.r_[cuts, len(values) - 1]], strict=True)


def thinned(points: Array, most: int = MOST_POINTS) -> Array:
    """At most that many points, spread evenly over their order."""
    return points if len(points) <= most else points[np.linspace(0, len(points) - 1, most).astype(int)]


class _Direction:
    """Points of a thing and of its surroundings, along and across one closing direction."""

    def __init__(self, points: Array, others: Array, centre: Array, angle: float, covered: bool) -> None:
        self.closing = np.array([np.cos(angle), np.sin(angle), 0.0])
        self._across = np.array([-np.sin(angle), np.cos(angle), 0.0])
        self._centre, self._covered = centre, covered
        self._thing = self._project(points)
        self._others = self._project(others)

    def _project(self, points: Array) -> tuple[Array, Array, Array]:
        relative = points - self._centre
        return relative @ self.closing, relative @ self._across, points[:, 2]

    def _along(
        self, of: tuple[Array, Array, Array], offset: float, half: float, above: float, below: float = np.inf
    ) -> Array:
        """Positions along the closing direction of the points in a strip and between two heights."""
        u, v, z = of
        return u[(np.abs(v - offset) < half) & (z > above) & (z < below)]

    def parts(self, offset: float, height: float) -> Iterator[tuple[float, float]]:
        """Middle and width of every part that the fingers can close on."""
        inside = self._along(self._thing, offset, FINGER_M, height - FINGERTIP_M)
        for first, last in intervals(np.sort(inside)):
            middle = (first + last) / 2
            if last - first <= MAX_WIDTH_M and self._free(offset, height, middle):
                yield middle, last - first

    def _free(self, offset: float, height: float, middle: float) -> bool:
        """Whether fingers and hand have room."""
        low, palm = height - FINGERTIP_M - 0.006, height + HAND_M[2]
        thing = np.abs(self._along(self._thing, offset, FINGER_M + 0.003, low) - middle)
        others = np.abs(self._along(self._others, offset, FINGER_M + 0.005, low, palm) - middle)
        slot = np.concatenate([thing, others])
        if ((slot > SLOT_M[0]) & (slot < SLOT_M[1])).any() or (others < 0.05).any():
            return False
        if self._covered:
            return True
        length, half, palm = HAND_M
        above = [self._along(of, offset, half, height + palm) for of in (self._thing, self._others)]
        return not (np.abs(np.concatenate(above) - middle) < length).any()

    def point(self, offset: float, middle: float, height: float) -> Array:
        xy = self._centre + middle * self.closing + offset * self._across
        return np.array([xy[0], xy[1], height])


def grasp_candidates(
    points: Array,
    others: Array,
    centre_of_mass: Array,
    hand_axes: Array,
    prefer: Preference | None = None,
    *,
    covered: bool = False,
) -> list[Grasp]:
    """Grasps from above, best first, no two alike.

    Args:
        points: of the thing, [P, 3].
        others: of everything else, [O, 3].
        centre_of_mass: of the thing, [3].
        hand_axes: as they are now, [3, 3].
        prefer: extra cost.
        covered: also grasps over which the hand has no room; it has to lean.
    """
    low, high = points.min(0), points.max(0)
    centre = np.array([*(low + high)[:2] / 2, 0.0])
    near = (np.abs(others[:, :2] - centre[:2]) < 0.2).all(1) & (others[:, 2] > low[2] + 0.002)
    points, others = thinned(points), thinned(others[near], 2 * MOST_POINTS)
    angles = np.pi * np.arange(NUM_DIRECTIONS) / NUM_DIRECTIONS
    directions = [_Direction(points, others, centre, angle, covered) for angle in angles]
    found: list[Grasp] = []
    for offsets, depths in (((0.0,), DEPTHS_M), (OFFSETS_M, DEPTHS_M[:3])):
        if len(found) >= 6:
            break
        for depth in depths:
            height = max(high[2] - depth, low[2] + LOWEST_M)
            for direction in directions:
                for offset in offsets:
                    for middle, width in direction.parts(offset, height):
                        point = direction.point(offset, middle, height)
                        axes, angle = hand_frame(direction.closing, DOWN, hand_axes)
                        cost = _cost(point, width, depth, high[2] - height, offset, angle, centre_of_mass)
                        extra = prefer(point, direction.closing) if prefer else 0.0
                        found.append(Grasp(point, axes, width, cost + extra))
    return _distinct(sorted(found, key=lambda grasp: grasp.cost))


def _cost(
    point: Array, width: float, depth: float, actual: float, offset: float, angle: float, centre_of_mass: Array
) -> float:
    lever = float(np.linalg.norm(point[:2] - centre_of_mass[:2]))
    shallow = abs(depth - actual)
    wide = 20 * width + 10 * max(0.0, width - 0.055)  # of a box, across it and not askew
    return -8 * depth + 4 * shallow + 6 * abs(offset) + TURN_COST * angle + 4 * lever + wide


def lean_over(grasp: Grasp, lean: Array, cost: float = 0.0) -> Grasp:
    """A grasp with the hand's tip leaning in a horizontal direction, by the length of `lean` [3] in rad."""
    angle = float(np.linalg.norm(lean))
    if angle == 0.0:
        return grasp
    axes, _ = hand_frame(grasp.closing, np.cos(angle) * DOWN + np.sin(angle) / angle * lean, grasp.axes)
    return replace(grasp, axes=axes, cost=grasp.cost + cost)


def twins(grasp: Grasp, hand_axes: Array) -> list[Grasp]:
    """The same grasp with the fingers one way round and the other, which costs more for the further turn."""
    frames = hand_frames(grasp.closing, grasp.axes[:, 2])
    turns = [float(np.linalg.norm(rotation_vector(hand_axes, axes))) for axes in frames]
    return [
        replace(grasp, axes=axes, cost=grasp.cost + TURN_COST * (turn - min(turns)))
        for axes, turn in zip(frames, turns, strict=True)
    ]


def ranked(grasps: Iterable[Grasp], extra: Callable[[Grasp], float]) -> Iterator[Grasp]:
    """Grasps with an extra cost added, best first; it is worked out only for those that may come next."""
    heap = [(grasp.cost, k, False, grasp) for k, grasp in enumerate(grasps)]
    heapq.heapify(heap)
    while heap:
        cost, k, known, grasp = heapq.heappop(heap)
        if known:
            yield replace(grasp, cost=cost)
        else:
            heapq.heappush(heap, (cost + extra(grasp), k, True, grasp))


def _distinct(grasps: list[Grasp], most: int = 12) -> list[Grasp]:
    """The first of every group of grasps at about the same point and direction."""
    kept: list[Grasp] = []
    for grasp in grasps:
        if all(
            np.linalg.norm(grasp.point - other.point) > 0.012 or abs(grasp.closing @ other.closing) < 0.9
            for other in kept
        ):
            kept.append(grasp)
        if len(kept) == most:
            break
    return kept
