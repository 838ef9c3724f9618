"""Drag a flat thing that offers no grasp: closed fingertips pressed onto its inside, behind the rim that leads."""

from __future__ import annotations

import numpy as np

from envs.suites.libero.expert.motion import CLOSED, DOWN, UP, Arm, Steps, hand_frame
from envs.suites.libero.expert.placement import place_for, support_height
from envs.suites.libero.expert.view import Array, Goal

LEAD_M = 0.03
"""The fingertips press this far ahead of the thing's middle."""
PRESS_M = (0.002, 0.001, 0.004)
"""How far into the surface they are asked to go, one per attempt: pressed harder, the thing is held by the table."""
NEAR_M = 0.012
LOST_M = 0.075
"""Fingertips further than this from the thing's middle have slipped over its rim."""


def drag(arm: Arm, goal: Goal, attempt: int) -> Steps:
    """Drag a thing over a place."""
    view, name = arm.view, goal[1]
    target = place_for(view, goal).xy
    press = PRESS_M[attempt % 3]
    middle = view.position(name)[:2]
    way = (target - middle) / max(float(np.linalg.norm(target - middle)), 1e-9)
    flat = support_height(view.points(name), middle)
    floor = float(view.points(name)[:, 2].min()) if flat is None else flat
    closing = view.hand_axes[:, 0] * [1, 1, 0]
    axes, _ = hand_frame(closing, DOWN, view.hand_axes)
    start = np.array([*(middle + LEAD_M * way), floor + 0.004])
    arm.command = CLOSED
    yield from arm.rise(start[2] + 0.12)
    yield from arm.move(start + 0.12 * UP, axes, tolerance=0.02, angle=0.1)
    yield from arm.move(start, axes, steps=30, speed=0.8)
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
        ahead = view.hand[:2] + rest * min(1.0, 0.03 / far)
        action = arm.toward(np.array([*ahead, height]), axes)
        action[:3] = np.clip(action[:3], -0.6, 0.6)
        action[3:6] = np.clip(action[3:6], -0.2, 0.2)
        yield action
    return False
