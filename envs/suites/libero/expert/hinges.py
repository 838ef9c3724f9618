"""Turn knobs, and open and close hinged doors.

A knob is pinched across its ridge and turned by turning the hand. A door is moved by a fingertip that follows the arc
of its free edge.
"""

from __future__ import annotations

import numpy as np

from envs.suites.libero.expert.motion import (
    CLOSED,
    DOWN,
    OPEN,
    OPENED_M,
    UP,
    Arm,
    Steps,
    hand_frame,
    hand_frames,
    turned,
)
from envs.suites.libero.expert.view import Array, View

ARC_STEP_RAD = 0.06
AJAR_RAD = 0.45
"""A door this far open leaves room for a finger behind its edge."""
CLOSED_RAD = 0.005
MOST_TURN_RAD = 1.5
"""Furthest turn of a knob without a new grip."""


def ridge(points: Array) -> Array:
    """The horizontal direction [3] along which the top 2 cm of a knob extend furthest."""
    top = points[points[:, 2] > points[:, 2].max() - 0.02][:, :2]
    direction = np.linalg.svd(top - top.mean(0), full_matrices=False)[2][0]
    return np.array([*direction, 0.0])


def turn_knob(arm: Arm, joint: int, angle: float, attempt: int) -> Steps:
    """Turn a knob about a vertical axis to an angle of its joint (rad)."""
    view = arm.view
    anchor, axis = view.joint_line(joint)
    points = view.cloud(view.moving_geoms(joint))
    across = np.cross(UP, ridge(points))
    axes, _ = hand_frame(across, DOWN, view.hand_axes)
    sink = (0.012, 0.018, 0.006)[attempt % 3]
    centre = np.array([*anchor[:2], points[:, 2].max() - sink])
    if not (arm.at(centre, axes, 0.02, 0.3) and view.opening < OPENED_M):
        yield from arm.rise(centre[2] + 0.12)
        arm.command = OPEN
        yield from arm.move(centre + 0.12 * UP, axes, tolerance=0.02, angle=0.08, steps=70)
        yield from arm.release()
        yield from arm.move(centre, axes, angle=0.08, steps=30, speed=0.7)
        yield from arm.close()
    arm.command = CLOSED
    start, begun = view.hand_axes, view.joint(joint)
    way = np.sign(angle - begun)
    for k in range(30):
        if (view.joint(joint) - angle) * way > 0.05:
            break
        turn = way * min(0.09 * (k + 1), abs(angle - begun) + 0.6, MOST_TURN_RAD)
        yield arm.toward(centre, turned(start, axis * turn), speed=0.6)
    yield from arm.open(6)
    yield from arm.shift(0.15 * UP, steps=25)
    return (view.joint(joint) - angle) * way > -0.02


class Door:
    """A hinged door's free edge, as it is now."""

    def __init__(self, view: View, joint: int) -> None:
        self._anchor, self._axis = view.joint_line(joint)
        self.points = view.cloud(view.moving_geoms(joint))
        radial = self.points - self._anchor
        radial -= np.outer(radial @ self._axis, self._axis)
        reach = np.linalg.norm(radial, axis=1)
        self.radius = 0.85 * float(np.percentile(reach, 97))
        outer = reach > 0.8 * reach.max()
        self.outer = self.points[outer]
        """Points near the free edge, [P, 3]."""
        arm = radial[outer].mean(0)
        self._arm = arm / np.linalg.norm(arm)

    def along(self, angle: float) -> Array:
        """Unit vector [3] in which the edge moves when the joint's angle grows, after a turn by `angle`."""
        return np.cross(self._axis, self._radial(angle))

    def edge(self, angle: float, ahead: float, radius: float = 1.0) -> Array:
        """A point [3] at the edge after a turn by `angle`, moved by `ahead` along the arc.

        `radius` is in units of `self.radius`.
        """
        return self._anchor + radius * self.radius * self._radial(angle) + ahead * self.along(angle)

    def _radial(self, angle: float) -> Array:
        return turned(self._arm[:, None], self._axis * angle)[:, 0]


def close_door(arm: Arm, joint: int) -> Steps:
    """Push a door along its arc until it is closed (joint at 0)."""
    yield from _push(arm, joint, 0.0, 0.07)
    return abs(arm.view.joint(joint)) < CLOSED_RAD


def open_door(arm: Arm, joint: int) -> Steps:
    """Pull a door ajar at its handle, and push it open from inside."""
    view = arm.view
    low, high = view.joint_range(joint)
    wide = low if -low > high else high
    way = float(np.sign(wide))
    if abs(view.joint(joint)) < AJAR_RAD:
        yield from _pull_ajar(arm, joint, way)
    yield from _push(arm, joint, 0.9 * wide, 0.05)
    return abs(view.joint(joint)) > 0.8 * abs(wide)


def _pull_ajar(arm: Arm, joint: int, way: float) -> Steps:
    """Pinch the handle with a level hand and pull it along its arc; the hand keeps its axes."""
    view = arm.view
    door = Door(view, joint)
    out = way * door.along(0.0)
    out = np.array([out[0], out[1], 0.0]) / np.linalg.norm(out[:2])
    far = door.outer @ out
    bar = door.outer[far > far.max() - 0.02]
    middle = bar.mean(0)
    axes, _ = hand_frame(np.cross(UP, out), -out, view.hand_axes)
    arm.command = OPEN
    yield from arm.rise(middle[2] + 0.1)
    yield from arm.move(middle + 0.14 * out + 0.1 * UP, axes, tolerance=0.03, angle=0.2, steps=80)
    yield from arm.move(middle + 0.12 * out, axes, tolerance=0.012, angle=0.08)
    yield from arm.release()
    yield from arm.move(middle - 0.004 * out, axes, angle=0.08, steps=30, speed=0.6)
    yield from arm.close()
    anchor, axis = view.joint_line(joint)
    held, begun = view.hand, view.joint(joint)
    for _ in range(30):
        if abs(view.joint(joint)) > AJAR_RAD + 0.1:
            break
        turn = view.joint(joint) - begun + way * ARC_STEP_RAD * 1.5
        yield arm.toward(anchor + turned((held - anchor)[:, None], axis * turn)[:, 0], axes, 0.6)
    yield from arm.open(6)
    yield from arm.shift(0.12 * out, axes, steps=15)
    return abs(view.joint(joint)) > AJAR_RAD


def _push(arm: Arm, joint: int, goal: float, behind: float) -> Steps:
    """Push a door's edge along its arc with closed fingertips until the joint is at an angle (rad)."""
    view = arm.view
    door = Door(view, joint)
    begun = view.joint(joint)
    way = float(np.sign(goal - begun))
    height = min(door.points[:, 2].max() - 0.03, door.edge(0.0, 0.0)[2] + 0.3)

    def at(turn: float, back: float) -> Array:
        """The fingertips' place [3], `back` behind the edge after a turn."""
        return np.array([*door.edge(way * turn, -way * back)[:2], height])

    arm.command = CLOSED
    high = max(view.hand[2], door.points[:, 2].max() + 0.08)
    start, end = at(0.0, behind), at(abs(goal - begun), 0.0)
    along = door.along(0.0)
    frames = [*hand_frames(np.cross(UP, along), DOWN), *hand_frames(along, DOWN)]
    axes = arm.best(frames, (start, end))
    yield from arm.rise(high, steps=30)
    yield from arm.move(np.array([*start[:2], high]), axes, tolerance=0.03, angle=0.3, steps=80)
    yield from arm.move(start, axes, tolerance=0.02, steps=40)
    for k in range(int(abs(goal - begun) / ARC_STEP_RAD) + 8):
        yield from arm.move(at(ARC_STEP_RAD * (k + 1), 0.012), tolerance=0.02, steps=4)
        if (view.joint(joint) - goal) * way > -0.004:
            break
    yield from arm.shift(-0.05 * way * door.along(goal - begun), steps=8)
    return True
