"""Open and close drawers: things that slide along a horizontal line.

Opening: the hand comes from the front, its fingers above and below the handle's bar, closes on it and pulls. The handle
is the moving geom that reaches furthest outward. Closing: the hand leans over the front and pushes it in.
"""

from __future__ import annotations

import numpy as np

from envs.suites.libero.expert.motion import CLOSED, DOWN, OPEN, OPENED_M, UP, Arm, Steps, hand_frame
from envs.suites.libero.expert.view import Array, View

REACH_M = 0.02
"""How much further than asked for a drawer is pulled."""
HELD_M = 0.025
"""Closed fingers this near to a handle hold it."""


def outward(view: View, joint: int) -> Array:
    """The direction in which a drawer opens, [3]: toward the end of its range that is further from closed (0)."""
    low, high = view.joint_range(joint)
    axis = view.joint_line(joint)[1]
    return axis if high > -low else -axis


def opened(view: View, joint: int) -> float:
    """How far a drawer is out, in metres."""
    low, high = view.joint_range(joint)
    return view.joint(joint) if high > -low else -view.joint(joint)


def handle(view: View, joint: int) -> Array:
    """Points of the moving geom that reaches furthest outward, [P, 3]."""
    out = outward(view, joint)
    geoms = view.moving_geoms(joint)
    furthest = max(geoms, key=lambda g: (view.cloud([g]) @ out).max())
    return view.cloud([furthest])


def open_drawer(arm: Arm, joint: int, far: float, attempt: int) -> Steps:
    """Pull a drawer until it is `far` metres out."""
    view = arm.view
    out = outward(view, joint)
    points = handle(view, joint)
    middle = points.mean(0) + 0.004 * UP
    approach = (-out, -0.94 * out + 0.34 * DOWN, (DOWN - out) / np.sqrt(2))[attempt % 3]
    bar = np.cross(out, UP)
    axes, _ = hand_frame(np.cross(bar, approach), approach, view.hand_axes)
    if not (arm.at(middle, axes, HELD_M, 0.3) and view.opening < OPENED_M):
        yield from _grasp_handle(arm, middle, axes, out)
    arm.command = CLOSED
    pull = far - opened(view, joint) + REACH_M
    yield from arm.move(view.hand + pull * out, axes, tolerance=0.01, speed=0.8)
    yield from arm.open(6)
    yield from arm.shift(0.03 * out - 0.06 * approach, axes)
    yield from arm.shift(0.2 * UP, steps=30)
    return opened(view, joint) > far - 0.01


def _grasp_handle(arm: Arm, middle: Array, axes: Array, out: Array) -> Steps:
    """To the front of a drawer, and along the hand's axes to its handle."""
    view, approach = arm.view, axes[:, 2]
    yield from arm.rise(middle[2] + 0.2)
    arm.command = OPEN
    front = middle + 0.14 * out
    yield from arm.move(np.array([*front[:2], max(view.hand[2], middle[2] + 0.2)]), axes, tolerance=0.03, angle=0.2)
    yield from arm.move(middle - 0.12 * approach + 0.02 * out, axes, tolerance=0.012, angle=0.08)
    yield from arm.release()
    yield from arm.move(middle + 0.006 * approach, axes, angle=0.08, steps=30, speed=0.6)
    return (yield from arm.close())


def close_drawer(arm: Arm, joint: int, attempt: int) -> Steps:
    """Push a drawer in."""
    view = arm.view
    out = outward(view, joint)
    points = handle(view, joint)
    lean = np.radians((35, 30, 42)[attempt % 3])
    approach = np.cos(lean) * DOWN - np.sin(lean) * out
    axes, _ = hand_frame(np.cross(out, UP), approach, view.hand_axes)
    middle = points.mean(0)
    face = middle + out * ((points - middle) @ out).max()
    arm.command = CLOSED
    before = face + 0.10 * out
    if not arm.at(face + 0.05 * out, axes, 0.07, 0.3):
        height = max(view.hand[2], middle[2] + 0.25)
        yield from arm.rise(height, steps=30)
        yield from arm.move(np.array([*before[:2], height]), axes, tolerance=0.04, angle=0.3, steps=70)
        yield from arm.move(before, axes, tolerance=0.02, angle=0.15)
    yield from arm.move(face - out * (0.05 + opened(view, joint)), axes, tolerance=0.004, speed=0.9)
    yield from arm.shift(0.05 * out + 0.03 * UP, axes, steps=8)
    return opened(view, joint) < 0.005
