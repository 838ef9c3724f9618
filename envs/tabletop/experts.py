"""Motions from which the tasks' experts are made: rules of the present state, without memory.

Having no memory, they can take over anywhere, so they label the states that a learner visits (DAgger), and what they do
is a function of what can be seen, which a policy can copy. Heights follow funnels: the farther the hand is sideways
from where it must go down, the higher it flies, and it waits sideways until it is high enough.

Shape letters: n worlds, A action dims.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from envs.tabletop.control import POSITION_SCALE_M, ROTATION_SCALE_RAD
from envs.tabletop.scene import CUBE_HALF_M
from envs.tabletop.task import Array, View

OPEN, CLOSE = -1.0, 1.0
GAIN = 0.7
"""Share of the remaining way that one action covers: less than 1, so that the hand arrives without overshoot."""
GRASP_TOLERANCE_M = 0.012
HOVER_M = 0.10
FUNNEL_SLOPE = 2.5
PUSH_HEIGHT_M = 0.02
PUSH_CLEARANCE_M = 0.085
PUSH_CONTACT_M = 0.042
"""Distance of the closed fingers' centre from an object's centre when they touch."""


def act(view: View, to_pos: Array, yaw_error: Array | float, grip: Array | float) -> NDArray[np.float32]:
    """One action that moves the fingertips towards `to_pos` [n, 3], turns by `yaw_error`, keeps the hand vertical."""
    step = GAIN * (to_pos - view.tcp_pos) / POSITION_SCALE_M
    # Shorten the whole vector rather than clip its elements: the direction of the motion is what matters.
    step /= np.maximum(np.abs(step).max(axis=1, keepdims=True), 1.0)
    turn = np.column_stack((view.tcp_tilt, np.broadcast_to(yaw_error, view.tcp_yaw.shape)))
    turn = np.clip(GAIN * turn / ROTATION_SCALE_RAD, -1, 1)
    grip = np.broadcast_to(grip, view.tcp_yaw.shape)[:, None]
    return np.concatenate((step, turn, grip), axis=1).astype(np.float32)


def yaw_to_square(view: View, yaw: Array) -> Array:
    """The smallest turn that brings the gripper square to a thing of that yaw with four equal sides, [n]."""
    return (yaw - view.tcp_yaw + np.pi / 4) % (np.pi / 2) - np.pi / 4


def holding(view: View, object_pos: Array, width_m: float) -> NDArray[np.bool_]:
    """The fingers have closed on a thing of that width."""
    at_hand = np.linalg.norm(object_pos - view.tcp_pos, axis=1) < 0.028
    return at_hand & (np.abs(view.opening_m - width_m) < 0.006)


def descend_to(view: View, point: Array, hover_m: float = HOVER_M) -> Array:
    """Where to move next so as to come down on `point` [n, 3] from above, [n, 3]."""
    sideways = np.linalg.norm(point[:, :2] - view.tcp_pos[:, :2], axis=1)
    height = point[:, 2] + np.clip(FUNNEL_SLOPE * (sideways - GRASP_TOLERANCE_M), 0, hover_m)
    missing = np.maximum(height - view.tcp_pos[:, 2] - 0.01, 0)
    go = np.clip(1 - missing / 0.05, 0, 1)[:, None]
    xy = view.tcp_pos[:, :2] + go * (point[:, :2] - view.tcp_pos[:, :2])
    return np.column_stack((xy, height))


def grasp(view: View, point: Array, yaw_error: Array | float = 0.0) -> NDArray[np.float32]:
    """Come down on `point` with open fingers and close them there."""
    offset = point - view.tcp_pos
    there = (np.linalg.norm(offset[:, :2], axis=1) < GRASP_TOLERANCE_M) & (np.abs(offset[:, 2]) < 0.01)
    return act(view, descend_to(view, point), yaw_error, np.where(there, CLOSE, OPEN))


def carry(view: View, held_pos: Array, to_pos: Array, tolerance_m: float) -> NDArray[np.float32]:
    """With something held at `held_pos`, bring it over `to_pos` [n, 3], down on it, and let go."""
    offset = to_pos - held_pos
    sideways = np.linalg.norm(offset[:, :2], axis=1)
    over = sideways < tolerance_m
    let_go = over & (offset[:, 2] > -0.012)
    # The held thing is what must arrive, so the hand goes where the thing's error vanishes.
    return act(view, descend_to(view, view.tcp_pos + offset), 0.0, np.where(let_go, OPEN, CLOSE))


def retreat(view: View) -> NDArray[np.float32]:
    """Open the fingers and go straight up."""
    return act(view, view.tcp_pos + np.array((0, 0, 0.06)), 0.0, OPEN)


def push(view: View, object_pos: Array, direction: Array) -> NDArray[np.float32]:
    """Go behind the object and push it along `direction` (unit vectors, [n, 2]) with closed fingers."""
    side = np.column_stack((-direction[:, 1], direction[:, 0]))
    offset = view.tcp_pos[:, :2] - object_pos[:, :2]
    along, across = (offset * direction).sum(axis=1), (offset * side).sum(axis=1)
    near_table = view.tcp_pos[:, 2] < PUSH_HEIGHT_M + 0.03
    behind = (along < -PUSH_CONTACT_M + 0.02) & (np.abs(across) < np.where(near_table, 0.022, 0.01))
    # Forward only below the top: fingers that come down along a side drag it down with them and jam it on the table.
    pushing = behind & (view.tcp_pos[:, 2] < PUSH_HEIGHT_M + 0.02)
    height = np.full(len(along), PUSH_HEIGHT_M)
    start = np.column_stack((object_pos[:, :2] - (PUSH_CONTACT_M + 0.025) * direction, height))
    ahead = object_pos[:, :2] + 0.3 * PUSH_CONTACT_M * direction - 0.9 * across[:, None] * side
    # Near the table and on the wrong side: straight up first, or the hand would drag the object along.
    stuck = near_table & ~behind & (np.linalg.norm(start[:, :2] - view.tcp_pos[:, :2], axis=1) > 0.02)
    up = np.column_stack((view.tcp_pos[:, :2], np.full(len(along), PUSH_CLEARANCE_M)))
    goal = np.where(stuck[:, None], up, descend_to(view, start, PUSH_CLEARANCE_M))
    goal = np.where(pushing[:, None], np.column_stack((ahead, height)), goal)
    action = act(view, goal, -view.tcp_yaw, CLOSE)
    action[:, :3] *= np.where(pushing, 0.6, 1.0)[:, None]
    return action


def press(view: View, point: Array) -> NDArray[np.float32]:
    """Come down through `point` with closed fingers."""
    return act(view, descend_to(view, point), -view.tcp_yaw, CLOSE)


def choose(condition: NDArray[np.bool_], yes: NDArray[np.float32], no: NDArray[np.float32]) -> NDArray[np.float32]:
    """Per world, one of two actions: [n] x [n, A] x [n, A] -> [n, A]."""
    return np.where(condition[:, None], yes, no)


def grasp_object(view: View) -> NDArray[np.float32]:
    """Grasp the target object, square to its sides."""
    pos = view.of_target(view.object_pos)
    return grasp(view, pos, yaw_to_square(view, view.of_target(view.object_yaw)))


def grasp_and_carry(view: View, rest: Array, tolerance_m: float) -> NDArray[np.float32]:
    """Grasp the target object, put it down with its centre at `rest` [n, 3], and withdraw."""
    pos = view.of_target(view.object_pos)
    held = holding(view, pos, 2 * CUBE_HALF_M)
    arrived = (np.linalg.norm((rest - pos)[:, :2], axis=1) < tolerance_m + 0.012) & (pos[:, 2] < rest[:, 2] + 0.012)
    return choose(
        arrived & ~held,
        retreat(view),
        choose(held, carry(view, pos, rest, tolerance_m), grasp_object(view)),
    )
