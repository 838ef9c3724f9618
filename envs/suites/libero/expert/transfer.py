"""Pick a thing up and put it down where a goal wants it.

The way of the hand: up to a height that clears what lies on the way, over the grasp, straight down, close, up; over the
place, down, open, up. A thing that is in the hand already, because somebody else grasped it, is put down from there.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from envs.suites.libero.expert.grasps import Grasp, grasp_candidates
from envs.suites.libero.expert.motion import CLOSED, DOWN, UP, Arm, Lost, Steps, hand_frame, level, watch
from envs.suites.libero.expert.placement import CLEARANCE_M, Place, highest_on_the_way, place_for
from envs.suites.libero.expert.view import Array, Goal

HOVER_M = 0.10
LIFT_M = 0.06
OVER_M = 0.015
"""A thing in the hand no further than this from its place, seen from above, only has to go down."""
REACH_M, STRETCH_COST = 0.70, 15.0
"""Horizontal distance from the arm's base beyond which a grasp costs more, and how much more, per metre."""
LEAN_M, LEAN_RAD_PER_M, MOST_LEAN_RAD = 0.74, 6.0, 0.55
"""Distance beyond which the hand leans outward to reach further, how much per metre, and how much at most."""
TILT_RAD = 0.1
"""A hand that leans less than this with a thing is levelled; one that leans more grasped it so."""
SLIPPED_M = 0.05
"""A thing that moved further than this in the hand has slipped out of it."""
MOVED_M = 0.02
"""A thing that moved further than this before it was grasped is somewhere else."""


def transfer(arm: Arm, goal: Goal, attempt: int) -> Steps:
    """Make `on` or `in` true; `attempt` counts the failures before and chooses among grasps.

    Raises:
        Lost: the thing was not where the plan had it, or slipped out of the hand.
    """
    name = goal[1]
    if not arm.view.in_hand(name):
        grasp = choose_grasp(arm, goal, attempt)
        if grasp is None:
            return False
        if not (yield from pick(arm, name, grasp)):
            yield from arm.release()
            yield from arm.rise(arm.view.hand[2] + 0.12)
            return False
    return (yield from put(arm, goal))


def choose_grasp(arm: Arm, goal: Goal, attempt: int) -> Grasp | None:
    """The best grasp that was not tried yet.

    For a place under an overhang the hand leans out of its way, and at the end of the arm's reach it leans outward.
    """
    view, name = arm.view, goal[1]
    outward = overhung(arm, goal)
    shift = np.array([*(place_for(view, goal).xy - view.position(name)[:2]), 0.0])

    def furthest(point: Array) -> Array:
        """Of the hand's two positions, at the grasp and at the place, that further from the arm's base."""
        return max((point, point + shift), key=view.distance_from_base)

    def cost(point: Array, closing: Array) -> float:
        """Of poses at the end of the arm's reach, and of fingers along the direction in which the hand leans."""
        stretch = STRETCH_COST * max(0.0, view.distance_from_base(furthest(point)) - REACH_M)
        return stretch + (0.0 if outward is None else 3 * abs(float(closing @ outward)))

    grasps = grasp_candidates(view.points(name), view.obstacles(name), view.centre_of_mass(name), view.hand_axes, cost)
    if not grasps:
        return None
    grasp = grasps[min(attempt, len(grasps) - 1)]
    if outward is not None:
        lean = np.radians((32, 40, 25)[attempt % 3]) if abs(grasp.closing @ outward) < 0.5 else 0.0
    else:
        outward = view.from_base(furthest(grasp.point))
        lean = np.clip(LEAN_RAD_PER_M * (view.distance_from_base(furthest(grasp.point)) - LEAN_M), 0.0, MOST_LEAN_RAD)
    if lean == 0.0:
        return grasp
    axes, _ = hand_frame(grasp.closing, np.cos(lean) * DOWN + np.sin(lean) * outward, view.hand_axes)
    return Grasp(grasp.point, axes, grasp.width, grasp.cost)


def overhung(arm: Arm, goal: Goal) -> Array | None:
    """The direction [3] out of a drawer that a thing goes into, whose cabinet overhangs it; None for other places."""
    region = arm.view.region(goal[2])
    if goal[0] != "in" or region is None or not region.joint_ids:
        return None
    return -arm.view.joint_line(region.joint_ids[0])[1]


def pick(arm: Arm, name: str, grasp: Grasp) -> Steps:
    """Grasp a thing and lift it; whether it came along."""
    view = arm.view
    start = view.position(name)
    arm.command = -1.0
    yield from watch(
        approach(arm, name, grasp),
        lambda: bool(np.linalg.norm(view.position(name) - start) < MOVED_M),
        f"{name} moved before it was grasped",
    )
    yield from arm.grip(CLOSED, 11)
    yield from from_under_overhang(arm, name, grasp)
    height = view.position(name)[2]
    yield from arm.shift(LIFT_M * UP, grasp.axes, tolerance=0.015)
    return bool(view.position(name)[2] - height > LIFT_M / 2)


def approach(arm: Arm, name: str, grasp: Grasp) -> Steps:
    """Over the grasp, and down to it; straight down if the hand is over it already."""
    view, point = arm.view, grasp.point
    hover = point + HOVER_M * UP
    above = view.hand - point
    over = np.linalg.norm(above[:2]) < 0.012 and -0.01 < above[2] < HOVER_M
    if not (over and arm.at(view.hand, grasp.axes, 1.0, 0.15)):
        if np.linalg.norm(above[:2]) > 0.03:
            clear = highest_on_the_way(view.obstacles(name), view.hand, point) + CLEARANCE_M + 0.02
            height = max(hover[2], clear)
            yield from arm.rise(min(height, view.hand[2] + 0.3))
            high = np.array([*point[:2], max(height, min(view.hand[2], height + 0.05))])
            yield from arm.move(high, grasp.axes, tolerance=0.02, angle=0.15)
        yield from arm.move(hover, grasp.axes, tolerance=0.012, steps=40)
    yield from arm.release()
    return (yield from arm.move(point, grasp.axes, tolerance=0.005, steps=30, speed=0.8))


def from_under_overhang(arm: Arm, name: str, grasp: Grasp) -> Steps:
    """A grasped thing under something else: a little up, and out sideways."""
    view = arm.view
    points, others = view.points(name), view.obstacles(name)
    low, high = points.min(0) - 0.012, points.max(0) + 0.012
    inside = ((others[:, :2] > low[:2]) & (others[:, :2] < high[:2])).all(1)
    above = others[inside & (others[:, 2] > points[:, 2].min() + 0.035)]
    if len(above):
        away = (low + high)[:2] / 2 - above[:, :2].mean(0)
        away /= np.linalg.norm(away) + 1e-9
        yield from arm.shift(0.02 * UP, grasp.axes, tolerance=0.01, steps=10)
        yield from arm.shift(np.array([*(0.09 * away), 0.0]), grasp.axes)
    return True


def put(arm: Arm, goal: Goal) -> Steps:
    """Put down the thing in the hand where a goal wants it.

    Raises:
        Lost: it slipped out of the hand.
    """
    view, name = arm.view, goal[1]
    arm.command = CLOSED
    axes = view.hand_axes if view.hand_axes[2, 2] > -np.cos(TILT_RAD) else level(view.hand_axes)
    place = place_for(view, goal)
    if np.linalg.norm(view.position(name)[:2] - place.xy) > OVER_M:
        yield from watch(_over(arm, name, place, axes), _held(arm, name), f"{name} slipped out of the hand")
    below = view.hand[2] - view.points(name)[:, 2].min()
    height = place.support + below + 0.008
    if goal[0] == "in" and place.wall is not None:
        height = max(height + 0.015, place.wall - 0.035)
    offset = (view.hand - view.position(name))[:2]
    yield from arm.move(np.array([*(place.xy + offset), height]), axes, steps=40, speed=0.6)
    yield from arm.grip(-1.0, 8)
    yield from arm.shift(0.10 * UP)
    for _ in range(3):
        yield arm.toward(view.hand)
    return view.holds(goal)


def _held(arm: Arm, name: str) -> Callable[[], bool]:
    """Whether a thing still is where it is in the hand now."""
    view = arm.view
    in_hand = lambda: view.hand_axes.T @ (view.position(name) - view.hand)  # noqa: E731
    start = in_hand()
    return lambda: bool(np.linalg.norm(in_hand() - start) < SLIPPED_M)


def _over(arm: Arm, name: str, place: Place, axes: Array) -> Steps:
    """Carry a thing to above its place."""
    view = arm.view
    below = view.hand[2] - view.points(name)[:, 2].min()
    clear = highest_on_the_way(view.obstacles(name), view.position(name), place.xy) + CLEARANCE_M
    height = max(clear + below, view.hand[2])
    yield from arm.rise(height, axes)
    offset = (view.hand - view.position(name))[:2]
    over = np.array([*(place.xy + offset), height])
    return (yield from arm.move(over, axes, tolerance=0.01, steps=70, gently=True))


__all__ = ["Lost", "pick", "put", "transfer"]
