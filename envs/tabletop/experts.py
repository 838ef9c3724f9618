"""Motion primitives of the tasks' scripted experts: functions of the current state, without memory.

Being memoryless, they can act from any state, so they provide expert labels on visited states (DAgger), and their
actions depend only on observable state, so a policy can imitate them. Approach heights follow a funnel: the larger the
hand's horizontal distance to the point of descent, the higher it moves, and it moves sideways only when high enough.

Shape letters: n worlds, A action dims.
"""

from __future__ import annotations

import math

from array_api_compat import array_namespace

from envs.arrays import constant
from envs.tabletop.episodes.task import View
from envs.tabletop.scene.things import CUBE_HALF_M
from envs.types import Array

OPEN, CLOSE = -1.0, 1.0
GAIN = 0.7
"""Fraction of the remaining distance that one action covers; below 1 to avoid overshoot."""
GRASP_TOLERANCE_M = 0.012
HOVER_M = 0.10
FUNNEL_SLOPE = 2.5
PUSH_HEIGHT_M = 0.02
PUSH_CLEARANCE_M = 0.085
PUSH_MARGIN_M = 0.0095
"""Added to the half sides of object and closed fingers for the contact distance: the object may be rotated."""


def act(view: View, to_pos: Array, yaw_error: Array | float, grip: Array | float) -> Array:
    """One action that moves the fingertips towards `to_pos` [n, 3], turns by `yaw_error`, keeps the hand vertical."""
    xp = array_namespace(to_pos)
    step = GAIN * (to_pos - view.tcp_pos) / view.arm.position_scale_m
    # Scale the whole vector rather than clip its elements, to keep the direction of the motion.
    step /= xp.max(xp.abs(step), axis=1, keepdims=True).clip(1.0)
    turn = xp.concat((view.tcp_tilt, _column(yaw_error, view)), axis=1)
    turn = (GAIN * turn / view.arm.rotation_scale_rad).clip(-1, 1)
    return xp.astype(xp.concat((step, turn, _column(grip, view)), axis=1), xp.float32)


def _column(value: Array | float, view: View) -> Array:
    """One number per world, or one for all, as [n, 1]."""
    if isinstance(value, float | int):
        return array_namespace(view.tcp_yaw).full_like(view.tcp_yaw[:, None], value)
    return value[:, None]


def yaw_to_square(view: View, yaw: Array) -> Array:
    """The smallest rotation that aligns the gripper with the sides of a square thing of that yaw, [n]."""
    return (yaw - view.tcp_yaw + math.pi / 4) % (math.pi / 2) - math.pi / 4


def holding(view: View, object_pos: Array, width_m: float) -> Array:
    """Whether the fingers have closed on a thing of that width, bool [n]."""
    xp = array_namespace(object_pos)
    at_hand = xp.linalg.vector_norm(object_pos - view.tcp_pos, axis=1) < 0.028
    return at_hand & (xp.abs(view.opening_m - width_m) < 0.006)


def descend_to(view: View, point: Array, hover_m: float = HOVER_M) -> Array:
    """The next position target for a descent on `point` [n, 3] from above, [n, 3]."""
    xp = array_namespace(point)
    sideways = xp.linalg.vector_norm(point[:, :2] - view.tcp_pos[:, :2], axis=1)
    height = point[:, 2] + (FUNNEL_SLOPE * (sideways - GRASP_TOLERANCE_M)).clip(0, hover_m)
    missing = (height - view.tcp_pos[:, 2] - 0.01).clip(0)
    go = (1 - missing / 0.05).clip(0, 1)[:, None]
    xy = view.tcp_pos[:, :2] + go * (point[:, :2] - view.tcp_pos[:, :2])
    return xp.concat((xy, height[:, None]), axis=1)


def grasp(view: View, point: Array, yaw_error: Array | float = 0.0) -> Array:
    """Descend on `point` with open fingers and close them there."""
    xp = array_namespace(point)
    offset = point - view.tcp_pos
    there = (xp.linalg.vector_norm(offset[:, :2], axis=1) < GRASP_TOLERANCE_M) & (xp.abs(offset[:, 2]) < 0.01)
    return act(view, descend_to(view, point), yaw_error, xp.where(there, CLOSE, OPEN))


def carry(view: View, held_pos: Array, to_pos: Array, tolerance_m: float) -> Array:
    """Move the thing held at `held_pos` over `to_pos` [n, 3], lower it there and release it."""
    xp = array_namespace(to_pos)
    offset = to_pos - held_pos
    sideways = xp.linalg.vector_norm(offset[:, :2], axis=1)
    over = sideways < tolerance_m
    let_go = over & (offset[:, 2] > -0.012)
    # The position error is that of the held thing, not of the hand.
    return act(view, descend_to(view, view.tcp_pos + offset), 0.0, xp.where(let_go, OPEN, CLOSE))


def retreat(view: View) -> Array:
    """Open the fingers and move straight up."""
    return act(view, view.tcp_pos + constant((0, 0, 0.06), view.tcp_pos), 0.0, OPEN)


def unit(vector: Array) -> Array:
    """Unit vectors in these directions, [n, 2]; zero vectors are unchanged."""
    return vector / array_namespace(vector).linalg.vector_norm(vector, axis=1, keepdims=True).clip(1e-6)


def push(view: View, object_pos: Array, direction: Array) -> Array:
    """Move behind the object and push it along `direction` (unit vectors, [n, 2]) with closed fingers."""
    xp = array_namespace(direction)
    side = xp.stack((-direction[:, 1], direction[:, 0]), axis=1)
    offset = view.tcp_pos[:, :2] - object_pos[:, :2]
    contact_m = CUBE_HALF_M + view.arm.finger_half_m + PUSH_MARGIN_M
    along, across = xp.sum(offset * direction, axis=1), xp.sum(offset * side, axis=1)
    near_table = view.tcp_pos[:, 2] < PUSH_HEIGHT_M + 0.03
    behind = (along < -contact_m + 0.02) & (xp.abs(across) < xp.where(near_table, 0.022, 0.01))
    # Push only below the top: fingers that descend along a side press the object down and jam it on the table.
    pushing = behind & (view.tcp_pos[:, 2] < PUSH_HEIGHT_M + 0.02)
    height = _column(PUSH_HEIGHT_M, view)
    start = xp.concat((object_pos[:, :2] - (contact_m + 0.025) * direction, height), axis=1)
    ahead = object_pos[:, :2] + 0.3 * contact_m * direction - 0.9 * across[:, None] * side
    # Near the table on the wrong side: move straight up first, or the hand would drag the object along.
    stuck = near_table & ~behind & (xp.linalg.vector_norm(start[:, :2] - view.tcp_pos[:, :2], axis=1) > 0.02)
    up = xp.concat((view.tcp_pos[:, :2], _column(PUSH_CLEARANCE_M, view)), axis=1)
    goal = xp.where(stuck[:, None], up, descend_to(view, start, PUSH_CLEARANCE_M))
    goal = xp.where(pushing[:, None], xp.concat((ahead, height), axis=1), goal)
    action = act(view, goal, -view.tcp_yaw, CLOSE)
    action[:, :3] *= xp.where(pushing, 0.6, 1.0)[:, None]
    return action


def press(view: View, point: Array) -> Array:
    """Descend through `point` with closed fingers."""
    return act(view, descend_to(view, point), -view.tcp_yaw, CLOSE)


def choose(condition: Array, yes: Array, no: Array) -> Array:
    """Per world, one of two actions: [n] x [n, A] x [n, A] -> [n, A]."""
    return array_namespace(yes).where(condition[:, None], yes, no)


def grasp_object(view: View) -> Array:
    """Grasp the target object, aligned with its sides."""
    pos = view.of_target(view.object_pos)
    return grasp(view, pos, yaw_to_square(view, view.of_target(view.object_yaw)))


def grasp_and_carry(view: View, rest: Array, tolerance_m: float) -> Array:
    """Grasp the target object, put it down with its centre at `rest` [n, 3], and withdraw."""
    xp = array_namespace(rest)
    pos = view.of_target(view.object_pos)
    held = holding(view, pos, 2 * CUBE_HALF_M)
    arrived = (xp.linalg.vector_norm((rest - pos)[:, :2], axis=1) < tolerance_m + 0.012) & (
        pos[:, 2] < rest[:, 2] + 0.012
    )
    return choose(
        arrived & ~held,
        retreat(view),
        choose(held, carry(view, pos, rest, tolerance_m), grasp_object(view)),
    )
