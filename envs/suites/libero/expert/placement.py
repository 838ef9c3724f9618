"""Where a thing has to be put down for a goal to hold: over which point, onto what height, between which walls.

The suite's predicates test origins of bodies: `on` a thing wants the two origins within 3 cm of each other and contact,
`on` and `in` a region want the origin inside the region's box. So a place is where the origin goes; heights come from
the points of what is below it.

Shape letters: P points, S places. Lengths in metres, world frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from envs.suites.libero.expert.view import Array, Goal, View

PATH_M = 0.11
"""Things closer than this to the straight way, seen from above, are flown over."""
CLEARANCE_M = 0.03
FOOT_M = 0.03
"""Radius around a place within which points support what is put there."""
FLOOR_M = 0.015
"""Points higher than this above a compartment's floor are its walls."""
ROOM_M = 0.02
"""Distance to other things beyond which more does not matter."""
MARGIN_M = 0.006
"""Free room that a thing has to its sides."""
OUTWARD_M = 0.03
"""How far outward of a drawer's middle things go, away from the cabinet that overhangs it."""


@dataclass(frozen=True)
class Place:
    """Where a thing goes."""

    xy: Array
    """Of the origin of its body, [2]."""
    support: float
    """Height of what it will stand on."""
    wall: float | None
    """Height of the walls around the place, which the hand stays clear of; None without walls."""


def highest_on_the_way(others: Array, start: Array, end: Array) -> float:
    """Greatest height of points within PATH_M of the segment between two points, seen from above; 0 without any.

    Args:
        others: [P, 3].
        start: [2 or 3].
        end: likewise.
    """
    a, way = start[:2], end[:2] - start[:2]
    share = np.clip((others[:, :2] - a) @ way / max(float(way @ way), 1e-12), 0.0, 1.0)
    near = np.linalg.norm(others[:, :2] - (a + share[:, None] * way), axis=1) < PATH_M
    return float(others[near, 2].max()) if near.any() else 0.0


def support_height(points: Array, xy: Array, radius: float = FOOT_M) -> float | None:
    """Height of the highest points around a place; None if there are none.

    Args:
        points: of what is below, [P, 3].
        xy: [2].
        radius: of the circle that counts.
    """
    near = np.linalg.norm(points[:, :2] - xy[:2], axis=1) < radius
    return float(points[near, 2].max()) if near.any() else None


def slots(half: Array, size: Array, count: int) -> Array:
    """Places for several things side by side in one region, relative to its middle, [S, 2].

    They lie on the axis, x or y, along which the region holds more of them, as far apart as lets every origin stay
    inside with a margin of a fifth.

    Args:
        half: half-sides of the region, [2].
        size: of one thing, seen from above, [2].
        count: number of things.
    """
    if count == 1:
        return np.zeros((1, 2))
    direction = np.eye(2)[int(np.argmax(half / size))]
    reach = 0.8 * float(half @ direction)
    return np.linspace(-reach, reach, count)[:, None] * direction


def clearance(places: Array, footprint: tuple[Array, Array], points: Array) -> Array:
    """Distance from a footprint at each place to the nearest point, seen from above, [S]; infinite without points.

    Args:
        places: [S, 2].
        footprint: smallest and greatest coordinates relative to a place, [2] each.
        points: [P, 3].
    """
    if not len(points):
        return np.full(len(places), np.inf)
    relative = points[None, :, :2] - places[:, None]
    beside = np.maximum(np.maximum(footprint[0] - relative, relative - footprint[1]), 0.0)
    return np.linalg.norm(beside, axis=2).min(1)


def place_for(view: View, goal: Goal) -> Place:
    """Where a goal `on` or `in` wants its thing."""
    kind, _, target = goal
    region = view.region(target)
    if region is None:
        return _on_thing(view, target)
    if kind == "in":
        return _inside(view, goal)
    return _on_region(view, goal)


def footprint_of(view: View, name: str, top: float = np.inf) -> tuple[Array, Array]:
    """A thing's smallest and greatest coordinates relative to its origin, seen from above, [2] each.

    Args:
        view: where the thing is.
        name: of the thing.
        top: height above its lowest point up to which it counts.
    """
    points, origin = view.points(name), view.position(name)[:2]
    base = points[points[:, 2] <= points[:, 2].min() + top, :2]
    return base.min(0) - origin, base.max(0) - origin


def _on_region(view: View, goal: Goal) -> Place:
    """A place on a region where the thing has room, near the region's middle or, of several things, its own slot."""
    _, name, target = goal
    region = view.region(target)
    assert region is not None
    middle, axes = view.site(region)
    half = np.abs(axes @ region.half_size_m)[:2]
    low, high = footprint_of(view, name)
    places = np.stack(np.meshgrid(*(np.linspace(-0.85, 0.85, 9),) * 2), -1).reshape(-1, 2) * half + middle[:2]
    wanted = middle[:2] + _slot(view, goal, half, high - low)
    places = np.concatenate([wanted[None], places])
    if region.parent is None:
        height = view.table_height(middle)
    else:
        below = view.points(region.parent)
        found = support_height(below, middle, 0.05)
        height = float(middle[2]) if found is None else found
        top = below[np.abs(below[:, 2] - height) < FLOOR_M, :2]
        base = footprint_of(view, name, FLOOR_M)
        places = np.array([fitted(place, top.min(0), top.max(0), base) for place in places])
    others = view.obstacles(name)
    reach = float(np.abs(np.r_[low, high]).max()) + float(half.max()) + ROOM_M
    standing = others[(others[:, 2] > height + FLOOR_M) & (np.abs(others[:, :2] - middle[:2]) < reach).all(1)]
    room = np.minimum(clearance(places, (low, high), standing), ROOM_M)
    return Place(places[int(np.argmin(np.linalg.norm(places - wanted, axis=1) - 10 * room))], height, None)


def _on_thing(view: View, target: str) -> Place:
    xy = view.position(target)[:2]
    points = view.points(target)
    support = support_height(points, xy)
    return Place(xy, float(points[:, 2].min()) if support is None else support, float(points[:, 2].max()))


def fitted(wanted: Array, low: Array, high: Array, footprint: tuple[Array, Array]) -> Array:
    """The point nearest to the wanted one at which a footprint lies between walls; midway where it does not fit.

    Args:
        wanted: [2].
        low: the free room's smallest coordinates, [2].
        high: its greatest ones, [2].
        footprint: smallest and greatest coordinates relative to the point, [2] each.
    """
    first, last = low - footprint[0] + MARGIN_M, high - footprint[1] - MARGIN_M
    return np.where(first > last, (first + last) / 2, np.clip(wanted, first, np.maximum(first, last)))


def free_room(points: Array, middle: Array, half: Array) -> tuple[Array, Array]:
    """How far a rectangle reaches in x and y before it meets points, [2] each.

    Args:
        points: of the walls, [P, 3].
        middle: a point in the room, [2 or 3].
        half: half-sides of the rectangle that has to pass, [2].
    """
    relative = points[:, :2] - middle[:2]
    low, high = np.full(2, -np.inf), np.full(2, np.inf)
    for axis in (0, 1):
        beside = relative[np.abs(relative[:, 1 - axis]) < half[1 - axis], axis]
        if (beside < 0).any():
            low[axis] = beside[beside < 0].max()
        if (beside > 0).any():
            high[axis] = beside[beside > 0].min()
    return middle[:2] + low, middle[:2] + high


def _inside(view: View, goal: Goal) -> Place:
    """A place in a basket, a tray, a compartment or an open drawer."""
    _, name, target = goal
    region = view.region(target)
    assert region is not None and region.parent is not None
    position, axes = view.site(region)
    wanted = position[:2]
    if region.joint_ids:
        joint = region.joint_ids[0]
        wanted = wanted - OUTWARD_M * view.joint_line(joint)[1][:2]
        points = view.cloud(view.moving_geoms(joint))
    else:
        points = view.points(region.parent)
    support = support_height(points[points[:, 2] < position[2] + 0.01], position, 0.04)
    floor = float(points[:, 2].min()) if support is None else support
    footprint = footprint_of(view, name)
    half = (footprint[1] - footprint[0]) / 2
    low, high = free_room(points[points[:, 2] > floor + FLOOR_M], position, half)
    region_half = np.abs(axes @ region.half_size_m)[:2]
    xy = fitted(wanted, low, high, footprint)
    xy = np.clip(xy, position[:2] - region_half + MARGIN_M, position[:2] + region_half - MARGIN_M)
    around = points[(np.abs(points[:, :2] - xy) < region_half + 0.04).all(1)]
    return Place(xy, floor, float(around[:, 2].max()) if len(around) else None)


def _slot(view: View, goal: Goal, half: Array, size: Array) -> Array:
    """Offset from the middle of a region for one of the things that the task puts on it, [2]."""
    kind, name, target = goal
    region = view.region(target)
    assert region is not None
    same = [g for g in view.scene.goal if len(g) == 3 and g[2] == target and g[0] == kind]
    middle, _ = view.site(region)
    choices = slots(half, size, len(same))
    others = [g[1] for g in same if g[1] != name and view.holds(g)]
    near = [
        min((float(np.linalg.norm(middle[:2] + c - view.position(o)[:2])) for o in others), default=0) for c in choices
    ]
    way = np.linalg.norm(middle[:2] + choices - view.position(name)[:2], axis=1)
    return choices[int(np.argmin(way - 10 * np.array(near)))]
