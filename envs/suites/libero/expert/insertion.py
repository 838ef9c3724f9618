"""Put a thing into a box that is open to one side: a microwave, a shelf.

The thing is pinched at the part nearest to the opening with a hand that leans out of the box's way, turned upright,
taken in horizontally and let go.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from envs.suites.libero.expert.grasps import grasp_candidates
from envs.suites.libero.expert.motion import DOWN, OPEN, UP, Arm, Steps, hand_frame, turned
from envs.suites.libero.expert.view import Array, Goal, View

INSIDE_M = 0.015
"""How far inside a region's box the thing's origin goes, from the side of the opening."""
CLEARANCE_M, HEADROOM_M = 0.022, 0.006
"""Height above a box's floor at which a thing is taken in, and less if that leaves so little above it."""
HANDLE_M = 0.035
"""Parts narrower than this can be pinched as a handle."""


@dataclass(frozen=True)
class Box:
    """A compartment that is covered, and open to one side."""

    middle: Array
    """[3]"""
    outward: Array
    """Horizontal unit vector [3] through the opening."""
    side: Array
    """Horizontal unit vector [3] along the opening."""
    floor: float
    """Height of its bottom."""
    ceiling: float
    """Height of its top."""
    front: float
    """Distance from the middle to the furthest point of its fixed walls, along outward."""
    depth: float
    """How far behind the front the thing's origin goes."""


def box_of(view: View, target: str) -> Box | None:
    """The compartment of a region; None if it is open to above, or closed on every side.

    Doors do not count as walls.
    """
    region = view.region(target)
    if region is None or region.parent is None:
        return None
    middle, axes = view.site(region)
    half = np.abs(axes @ region.half_size_m)
    thing = view.thing(region.parent)
    moving = {g for joint in thing.joint_ids for g in view.moving_geoms(joint)}
    walls = view.cloud(g for g in thing.geom_ids if g not in moving)
    relative = walls - middle
    central = (np.abs(relative[:, :2]) < half[:2] / 2).all(1)
    above = walls[central & (relative[:, 2] > 0), 2]
    if not len(above):
        return None
    below = walls[central & (relative[:, 2] < 0), 2]
    floor = float(below.max()) if len(below) else view.table_height(middle)
    ceiling = float(above.min())
    horizontal = [axis for axis in axes.T if abs(axis[2]) < 0.5]
    for outward in (sign * axis for axis in horizontal for sign in (1.0, -1.0)):
        side = np.cross(UP, outward)
        ahead = (relative @ outward > 0) & (np.abs(relative @ side) < (np.abs(side) @ half) / 2)
        if not (ahead & (np.abs(relative[:, 2]) < half[2] / 2)).any():
            front = float((relative @ outward).max())
            return Box(middle, outward, side, floor, ceiling, front, front - float(np.abs(outward) @ half) + INSIDE_M)
    return None


def insert(arm: Arm, goal: Goal, attempt: int) -> Steps:
    """Put a thing into the box of a goal `in`."""
    view, name = arm.view, goal[1]
    box = box_of(view, goal[2])
    assert box is not None
    pinch = _pinch(arm, name, box, attempt)
    if pinch is None:
        return False
    point, axes = pinch
    upright = view.axes(name).T @ UP
    yield from arm.rise(point[2] + 0.12)
    arm.command = OPEN
    yield from arm.move(point - 0.10 * axes[:, 2] + 0.03 * UP, axes, tolerance=0.015, angle=0.1, steps=70)
    yield from arm.release()
    yield from arm.move(point, axes, angle=0.08, steps=40, speed=0.8)
    yield from arm.close()
    height = view.position(name)[2]
    yield from arm.shift(0.05 * UP, axes, tolerance=0.015)
    if view.position(name)[2] - height < 0.02:
        yield from arm.open(5)
        yield from arm.shift(-0.1 * axes[:, 2], axes)
        return False
    yield from _take_in(arm, name, box, axes, upright)
    return view.holds(goal)


def _pinch(arm: Arm, name: str, box: Box, attempt: int) -> tuple[Array, Array] | None:
    """Point and axes of the hand: at a handle that points out of the box, or else at the wall nearest to it."""
    view, out = arm.view, box.outward
    middle, points = view.position(name), view.points(name)
    reach = (points - middle) @ out
    tips = [points[reach > reach.max() - length] for length in (0.035, 0.012)]
    slim = [tip for tip in tips if np.ptp(tip @ box.side) < HANDLE_M]
    if slim and attempt % 3 < 2:
        tip = slim[0]
        point, closing, lean = tip.mean(0) + 0.2 * np.ptp(tip[:, 2]) * UP, box.side, np.radians((50, 35)[attempt % 3])
    else:
        prefer = lambda point, closing: -20 * (point - middle) @ out - 2 * abs(closing @ out)  # noqa: E731
        grasps = grasp_candidates(points, view.obstacles(name), view.centre_of_mass(name), view.hand_axes, prefer)
        along = [grasp for grasp in grasps if abs(grasp.closing @ out) > 0.9]
        if not along:
            return None
        point, closing, lean = along[0].point, along[0].closing, np.radians((32, 42, 25)[attempt % 3])
    approach = np.cos(lean) * DOWN - np.sin(lean) * out
    axes, _ = hand_frame(closing, approach, view.hand_axes)
    return point + 0.004 * approach, axes


def _take_in(arm: Arm, name: str, box: Box, axes: Array, upright: Array) -> Steps:
    """From in front of the box into it; `upright` is the world's up in the thing's frame when it stood."""
    view = arm.view

    def at(depth: float, clearance: float) -> Array:
        """Where the hand is when the thing's origin is that deep behind the front and its bottom above the floor."""
        bottom = view.points(name)[:, 2].min()
        xy = box.middle + (box.front - depth) * box.outward + view.hand - view.position(name)
        return np.array([xy[0], xy[1], box.floor + view.hand[2] - bottom + clearance])

    before = at(-0.11, 0.012)
    yield from arm.move(np.array([*before[:2], max(before[2], view.hand[2])]), axes, tolerance=0.02)
    yield from arm.move(before, axes, tolerance=0.01, steps=40)
    now = view.axes(name) @ upright
    normal = np.cross(now, UP)
    sine = float(np.linalg.norm(normal))
    axes = turned(view.hand_axes, normal / (sine + 1e-9) * np.arcsin(min(1.0, sine)))
    yield from arm.move(view.hand, axes, tolerance=0.02, angle=0.05, steps=20)
    height = float(np.ptp(view.points(name)[:, 2]))
    clearance = max(0.0, min(CLEARANCE_M, box.ceiling - box.floor - height - HEADROOM_M))
    yield from arm.move(at(-0.11, clearance), axes, steps=20)
    inside = at(box.depth, clearance)
    yield from arm.move(inside, axes, steps=50, speed=0.6)
    yield from arm.move(inside - (clearance - 0.002) * UP, axes, tolerance=0.005, steps=12, speed=0.4)
    yield from arm.open(7)
    yield from arm.shift(0.05 * (box.outward - view.hand_axes[:, 2]), tolerance=0.015)
    return (yield from arm.shift(0.12 * box.outward + 0.05 * UP, tolerance=0.03, steps=30))
