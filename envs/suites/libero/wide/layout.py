"""Where things stand when a wide episode begins: all over the table, free of each other, not as LIBERO-PRO has them.

Fixtures come first, then what the goal names, then the rest. A draw that leaves no room for something fails.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from envs.suites.libero.wide.composition import Composition
from envs.suites.libero.wide.goals import Goal, part_of
from envs.suites.libero.wide.held_out import ORIGINS, HeldOut, named_place
from envs.suites.libero.wide.shapes import Shape, Support

Array = NDArray[np.float64]

AREAS_M = {
    "libero_tabletop_manipulation": ((-0.30, -0.30), (0.14, 0.30)),
    "libero_floor_manipulation": ((-0.23, -0.28), (0.17, 0.28)),
    "libero_kitchen_tabletop_manipulation": ((-0.25, -0.30), (0.12, 0.34)),
    "libero_living_room_tabletop_manipulation": ((-0.26, -0.32), (0.18, 0.32)),
    "libero_study_tabletop_manipulation": ((-0.25, -0.26), (0.18, 0.28)),
}
"""{arena: first and last x and y of movable things, relative to the arena}; about where any task of LIBERO has one."""
FIXTURES_M = {
    "desk_caddy": ((-0.25, -0.05), (0.0, 0.22)),
    "flat_stove": ((-0.42, -0.15), (0.0, 0.24)),
    "microwave": ((-0.12, 0.05), (0.25, 0.35)),
    "white_cabinet": ((-0.15, 0.08), (0.24, 0.31)),
    "wine_rack": ((-0.26, 0.03), (0.24, 0.30)),
    "wooden_cabinet": ((-0.15, 0.08), (0.24, 0.31)),
}
"""{category: x, and distance from the middle in y} of fixtures."""
OPENING_M = (-0.02, 0.045)
"""x of a cabinet or microwave that is opened or closed: the hand comes from its front, and reaches less far so."""
_FACING = ("microwave", "white_cabinet", "wine_rack", "wooden_cabinet")
"""Fixtures that face the middle of the table."""
_TURNED = ("desk_caddy",)
REACH_M = 0.68
"""Greatest horizontal distance from the arm's base of what the goal names."""
BEYOND_M = 0.06
"""How far outside of that area other things may stand."""
GAP_M, HAND_M = 0.012, 0.04
"""Room between things, and around what the goal names."""
DRAWER_M = 0.22
"""Room in front of what opens."""
MOST_YAW_RAD = 0.6
SUPPORTED, SUPPORTED_M = 0.15, 0.06
"""Probability that a thing begins on a fixture, and the greatest radius of one that does."""
SHIFT_M, DROP_M = 0.015, 0.005
"""How far from the middle of a support a thing begins, and how far above it."""
_TRIES = 40


class Pose(NamedTuple):
    """Of a thing's body."""

    pos: Array  # [3]
    quat: Array  # [4]
    yaw: float
    """By which it is turned about the vertical axis, from how the suite puts it down, rad."""


class Rectangle(NamedTuple):
    """Seen from above."""

    low: Array  # [2]
    high: Array

    def overlaps(self, other: Rectangle) -> bool:
        return bool((self.low < other.high).all() and (other.low < self.high).all())


class Layout:
    """Draws poses of the things of one scene for one goal."""

    def __init__(
        self,
        composition: Composition,
        shapes: Mapping[str, Shape],
        supports: Mapping[str, Support],
        base_m: Array,
        goal: Goal,
        rng: np.random.Generator,
    ) -> None:
        """
        Args:
            supports: {region: where} of fixtures on which things may begin.
            base_m: horizontal position of the arm's base, [2].
        """
        self._composition, self._shapes, self._base_m = composition, shapes, base_m
        self._goal, self._rng = goal, rng
        self._origin = np.array(ORIGINS.get(composition.arena, (0.0, 0.0)))
        categories = composition.categories
        self._named = {named_place(name, categories)[0] for predicate in goal for name in predicate[1:]}
        parts = [part_of(name, composition) for predicate in goal for name in predicate[1:]]
        self._opening = {named_place(part, categories)[0] for part in parts if part is not None}
        self._opening |= {predicate[1] for predicate in goal if categories.get(predicate[1]) == "microwave"}
        self._supports = {
            region: support
            for region, support in supports.items()
            if region not in sum(goal, ()) and support.fixture not in self._opening
        }
        self.poses: dict[str, Pose] = {}
        self.on: dict[str, str] = {}
        """{thing: region of a fixture that it stands on}"""
        self._taken: dict[str, Rectangle] = {}

    def sample(self) -> bool:
        """Fill `poses`; whether there was room for everything."""
        things = [*self._composition.fixtures, *self._composition.movable]
        things.sort(key=lambda name: (name not in self._composition.fixtures, name not in self._named))
        return all(self._put(name) for name in things)

    def is_held_out(self, refused: HeldOut) -> bool:
        """Whether LIBERO-PRO has the goal's things there."""
        points = {name: pose.pos for name, pose in self.poses.items()}
        return refused.has_placement(self._composition.arena, self._goal, self._composition.categories, points)

    def _put(self, name: str) -> bool:
        if self._rests(name):
            return True
        fixture = name in self._composition.fixtures
        for _ in range(_TRIES):
            pose = self._fixture(name) if fixture else self._movable(name)
            room = self._room(name, pose)
            gap = HAND_M if name in self._named else GAP_M
            wider = Rectangle(room.low - gap, room.high + gap)
            reached = name not in self._named or fixture or self._reach(pose) <= REACH_M
            if reached and not any(wider.overlaps(taken) for taken in self._taken.values()):
                self.poses[name], self._taken[name] = pose, self._with_opening(name, room, pose)
                return True
        return False

    def _rests(self, name: str) -> bool:
        """Put a thing on a free support, sometimes."""
        free = [region for region in self._supports if region not in self.on.values()]
        shape, small = self._shapes[name], self._shapes[name].radius_m < SUPPORTED_M
        if name in self._composition.fixtures or not free or not small or self._rng.random() > SUPPORTED:
            return False
        region = free[int(self._rng.integers(len(free)))]
        fixture, offset, height = self._supports[region]
        under = self.poses[fixture]
        turned = -offset if _is_back(under) else offset
        xy = under.pos[:2] + turned + self._rng.uniform(-SHIFT_M, SHIFT_M, 2)
        self.poses[name] = Pose(np.array([*xy, under.pos[2] + height - shape.low[2] + DROP_M]), shape.quat, 0.0)
        self.on[name] = region
        return True

    def _reach(self, pose: Pose) -> float:
        return float(np.linalg.norm(pose.pos[:2] - self._base_m))

    def _fixture(self, name: str) -> Pose:
        rng, category = self._rng, self._composition.fixtures[name]
        (x0, x1), (y0, y1) = FIXTURES_M[category]
        if name in self._opening:
            x0, x1 = OPENING_M
        side = 1.0 if rng.random() < 0.5 else -1.0
        xy = np.array([rng.uniform(x0, x1), side * rng.uniform(y0, y1)]) + self._origin
        turned = category in _TURNED or (category in _FACING and side < 0)
        yaw = np.pi * turned + rng.uniform(-0.08, 0.08)
        return self._pose(name, xy, yaw)

    def _movable(self, name: str) -> Pose:
        low, high = np.array(AREAS_M[self._composition.arena]) + self._origin
        margin = 0.0 if name in self._named else BEYOND_M
        xy = self._rng.uniform(low - margin, high + margin)
        yaw = self._rng.uniform(-MOST_YAW_RAD, MOST_YAW_RAD) if self._rng.random() < 0.5 else 0.0
        return self._pose(name, xy, yaw)

    def _pose(self, name: str, xy: Array, yaw: float) -> Pose:
        shape = self._shapes[name]
        return Pose(np.array([*xy, shape.height]), _turned(shape.quat, yaw), yaw)

    def _room(self, name: str, pose: Pose) -> Rectangle:
        shape = self._shapes[name]
        if name not in self._composition.fixtures and pose.yaw:
            return Rectangle(pose.pos[:2] - shape.radius_m, pose.pos[:2] + shape.radius_m)
        low, high = (-shape.high, -shape.low) if _is_back(pose) else (shape.low, shape.high)
        return Rectangle(pose.pos[:2] + low[:2], pose.pos[:2] + high[:2])

    def _with_opening(self, name: str, room: Rectangle, pose: Pose) -> Rectangle:
        """With the room in front of what opens, towards the middle of the table."""
        if name not in self._opening:
            return room
        ahead = np.array([0.0, DRAWER_M])
        return Rectangle(room.low - ahead, room.high) if pose.pos[1] > 0 else Rectangle(room.low, room.high + ahead)


def _turned(quat: Array, yaw: float) -> Array:
    """A quaternion [4] after a rotation about the vertical axis."""
    c, s = np.cos(yaw / 2), np.sin(yaw / 2)
    w, x, y, z = quat
    return np.array([c * w - s * z, c * x - s * y, c * y + s * x, c * z + s * w])


def _is_back(pose: Pose) -> bool:
    """Whether a fixture is turned around."""
    return abs(pose.yaw) > np.pi / 2
