"""Drag a flat thing that offers no grasp: closed fingertips pressed onto its inside, behind the rim that leads."""

from __future__ import annotations

import numpy as np

from envs.suites.libero.expert.motion import CLOSED, DOWN, UP, Arm, Steps, hand_frame
from envs.suites.libero.expert.placement import from_way, place_for, support_height
from envs.suites.libero.expert.view import Array, Goal

LEAD_M = 0.03
"""The fingertips press this far ahead of the thing's middle."""
NEAR_M = 0.012
LOST_M = 0.075
"""Fingertips further than this from the thing's middle have slipped over its rim."""
AHEAD_M = 0.03
"""How far ahead of the hand the way is followed."""
HIGHER_M = 0.005
"""Other things that reach this far above what the thing lies on stand in its way."""
CLEAR_M, DETOUR_COST = 0.015, 8.0
"""Free room beside a dragged thing beyond which more does not matter, and how long a detour, in metres per metre of
missing room, is taken for it."""


def drag(arm: Arm, goal: Goal, attempt: int) -> Steps:
    """Drag a thing over a place: straight at first, and around what it met there in later attempts."""
    view, name = arm.view, goal[1]
    place = place_for(view, goal)
    target = place.xy
    press = (0.006, 0.004, 0.008)[attempt % 3]
    middle = view.position(name)[:2]
    others = view.obstacles(name)
    standing = others[others[:, 2] > place.support + HIGHER_M, :2]
    radius = float(np.linalg.norm(view.points(name)[:, :2] - middle, axis=1).max())
    corner = detour(middle, target, standing, radius) if attempt else target
    way = (corner - middle) / max(float(np.linalg.norm(corner - middle)), 1e-9)
    flat = support_height(view.points(name), middle)
    floor = float(view.points(name)[:, 2].min()) if flat is None else flat
    closing = view.hand_axes[:, 0] * [1, 1, 0]
    axes, _ = hand_frame(closing, DOWN, view.hand_axes)
    start = np.array([*(middle + LEAD_M * way), floor + 0.004])
    arm.command = CLOSED
    yield from arm.rise(start[2] + 0.12)
    yield from arm.move(start + 0.12 * UP, axes, tolerance=0.02, angle=0.1)
    yield from arm.move(start, axes, steps=30, speed=0.8)
    yield from _pull(arm, name, corner, start[2] - press, axes)
    yield from _pull(arm, name, target, start[2] - press, axes)
    yield from arm.shift(0.10 * UP)
    return view.holds(goal)


def _pull(arm: Arm, name: str, target: Array, height: float, axes: Array) -> Steps:
    view = arm.view
    for _ in range(110):
        middle = view.position(name)[:2]
        rest = target - middle
        far = float(np.linalg.norm(rest))
        if far < NEAR_M:
            return True
        if np.linalg.norm(view.hand[:2] - middle) > LOST_M:
            return False
        ahead = view.hand[:2] + rest * min(1.0, AHEAD_M / far)
        action = arm.toward(np.array([*ahead, height]), axes)
        action[:3] = np.clip(action[:3], -0.6, 0.6)
        action[3:6] = np.clip(action[3:6], -0.2, 0.2)
        yield action
    return False


def detour(start: Array, end: Array, points: Array, radius: float) -> Array:
    """The corner [2] of a short way in two straight pieces on which a disc keeps clear of points; `end` if it can go
    straight.

    Args:
        start: of the disc's middle, [2].
        end: likewise.
        points: that stand in the way, [P, 2].
        radius: of the disc.
    """

    def cost(corner: Array) -> float:
        """Length of the way, and more for missing room; what is too near in the end itself counts in every way."""
        ways = [from_way(points, start, corner), from_way(points, corner, end)]
        room = float(np.min(ways, initial=np.inf)) - radius
        length = float(np.linalg.norm(corner - start) + np.linalg.norm(end - corner))
        return length + DETOUR_COST * max(0.0, CLEAR_M - room)

    low, high = np.minimum(start, end) - 0.1, np.maximum(start, end) + 0.1
    grid = np.stack(np.meshgrid(*np.linspace(low, high, 9).T), -1).reshape(-1, 2)
    return min([end, *grid], key=cost)
