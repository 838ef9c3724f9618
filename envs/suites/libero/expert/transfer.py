"""Pick a thing up and put it down where a goal wants it.

The way of the hand: up to a height that clears what lies on the way, over the grasp, straight down, close, up; over the
place, down, open, up. A thing that is in the hand already, because somebody else grasped it, is put down from there.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from envs.suites.libero.expert.choice import HOVER_M, LIFT_M, choose_grasp
from envs.suites.libero.expert.grasps import Grasp
from envs.suites.libero.expert.motion import CLOSED, LANDED_STEPS, OPEN, UP, Arm, Lost, Steps, level, watch
from envs.suites.libero.expert.placement import CLEARANCE_M, Place, highest_on_the_way, place_for
from envs.suites.libero.expert.reach import FREED_M, way_out
from envs.suites.libero.expert.view import Array, Goal

OVER_M = 0.015
"""A thing in the hand no further than this from its place, seen from above, only has to go down."""
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


def pick(arm: Arm, name: str, grasp: Grasp) -> Steps:
    """Grasp a thing and lift it; whether it came along, and came alone."""
    view = arm.view
    start = view.position(name)
    below = {other: view.position(other)[2] for other in view.scene.objects if view.position(other)[2] < start[2]}
    arm.command = OPEN
    yield from watch(
        approach(arm, name, grasp),
        lambda: bool(np.linalg.norm(view.position(name) - start) < MOVED_M),
        f"{name} moved before it was grasped",
    )
    yield from arm.close()
    yield from from_under(arm, name, grasp)
    height = view.position(name)[2]
    yield from arm.shift(LIFT_M * UP, grasp.axes, tolerance=0.015)
    if any(view.position(other)[2] > z + LIFT_M / 2 for other, z in below.items()):
        yield from arm.shift(-LIFT_M * UP, grasp.axes, tolerance=0.01)
        return False
    return bool(view.position(name)[2] - height > LIFT_M / 2)


def approach(arm: Arm, name: str, grasp: Grasp) -> Steps:
    """Over the grasp, and along the hand to it; without a detour if the hand is on that way already."""
    view, point = arm.view, grasp.point
    back = -grasp.axes[:, 2]
    hover = point + HOVER_M * back
    away = view.hand - point
    over = np.linalg.norm(away - (away @ back) * back) < 0.012 and -0.01 < away @ back < HOVER_M
    if not (over and arm.at(view.hand, grasp.axes, 1.0, 0.15)):
        if np.linalg.norm((view.hand - hover)[:2]) > 0.03:
            clear = highest_on_the_way(view.obstacles(name), view.hand, point) + CLEARANCE_M + 0.02
            height = max(hover[2], clear)
            yield from arm.rise(min(height, view.hand[2] + 0.3))
            high = np.array([*hover[:2], max(height, min(view.hand[2], height + 0.05))])
            yield from arm.move(high, grasp.axes, tolerance=0.02, angle=0.15)
        yield from arm.move(hover, grasp.axes, tolerance=0.012, steps=40)
    yield from arm.release()
    return (yield from arm.move(point, grasp.axes, tolerance=0.005, steps=30, speed=0.8))


def from_under(arm: Arm, name: str, grasp: Grasp) -> Steps:
    """A grasped thing under something else: a little up, and out sideways."""
    view = arm.view
    way = way_out(view.points(name), view.obstacles(name))
    if way.any():
        yield from arm.shift(FREED_M * UP, grasp.axes, tolerance=0.01, steps=10)
        yield from arm.shift(np.array([*way, 0.0]), grasp.axes, tolerance=0.01)
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
    yield from arm.move(np.array([*(place.xy + offset), height]), axes, steps=40, speed=0.6, stall_steps=LANDED_STEPS)
    yield from arm.open(3)  # around a wide thing they count as open before they have moved
    yield from arm.release()
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
