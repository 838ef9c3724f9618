"""The control law of `envs/tabletop/arm/control.py` as a kernel: from an action to joint targets, one tick of it.

Shape letters: N worlds, k actions of a chunk, J joints of the arm, F fingers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import warp as wp

from envs.arm import ArmSpec
from envs.tabletop.arm import control

wp.set_module_options({"enable_backward": False})


@wp.struct
class Arm:
    """An ArmSpec's numbers."""

    tcp_site: int
    position_scale_m: float
    rotation_scale_rad: float
    finger_travel_m: float
    workspace_low_m: wp.vec3
    workspace_high_m: wp.vec3
    num_fingers: int
    home_rad: wp.array[float]  # [J]
    lower_rad: wp.array[float]  # [J] of targets
    upper_rad: wp.array[float]  # [J]


@wp.struct
class Robot:
    """What the control law reads and writes of the simulator."""

    qpos: wp.array2d[float]  # [N, nq]
    ctrl: wp.array2d[float]  # [N, nu]
    site_xpos: wp.array2d[wp.vec3]  # [N, sites]
    site_xmat: wp.array2d[wp.mat33]  # [N, sites]
    xaxis: wp.array2d[wp.vec3]  # [N, joints]
    xanchor: wp.array2d[wp.vec3]  # [N, joints]


@wp.struct
class Aim:
    """Where the current actions began, and the orientation that they have reached."""

    start_pos: wp.array[wp.vec3]  # [N]
    goal_mat: wp.array[wp.mat33]  # [N]


def arm_struct(arm: ArmSpec, tcp_site: int, device: Any) -> Arm:
    """The numbers of an arm, on the device."""
    made = Arm()
    made.tcp_site, made.num_fingers = tcp_site, len(arm.fingers)
    made.position_scale_m, made.rotation_scale_rad = arm.position_scale_m, arm.rotation_scale_rad
    made.finger_travel_m = arm.finger_travel_m
    made.workspace_low_m, made.workspace_high_m = wp.vec3(arm.workspace_low_m), wp.vec3(arm.workspace_high_m)
    lower, upper = control.target_limits_rad(arm)
    for name, values in (("home_rad", arm.home_rad), ("lower_rad", lower), ("upper_rad", upper)):
        setattr(made, name, wp.array(np.array(values, np.float32), dtype=float, device=device))
    return made


@wp.func
def _matrix_of(rotation: wp.vec3) -> wp.mat33:
    """The rotation matrix of a rotation vector."""
    angle = wp.length(rotation)
    axis = rotation / wp.max(angle, 1e-12)
    cross = wp.skew(axis)
    return wp.identity(n=3, dtype=float) + wp.sin(angle) * cross + (1.0 - wp.cos(angle)) * (cross * cross)


@wp.func
def _rotation_vector(to_mat: wp.mat33, from_mat: wp.mat33) -> wp.vec3:
    """The rotation vector in the world's frame from one orientation to another."""
    turn = to_mat * wp.transpose(from_mat)
    axis = 0.5 * wp.vec3(turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1])
    sine = wp.length(axis)
    angle = wp.atan2(sine, 0.5 * (wp.trace(turn) - 1.0))
    if sine > 1e-9:
        axis = axis / sine
    return angle * axis


@wp.func
def _solve(gram: wp.spatial_matrix, right: wp.spatial_vector) -> wp.spatial_vector:
    """x of gram x = right, for a positive definite matrix, by Cholesky's decomposition."""
    lower = wp.spatial_matrix()
    for j in range(6):
        for i in range(j, 6):
            rest = gram[i, j]
            for m in range(j):
                rest = rest - lower[i, m] * lower[j, m]
            if i == j:
                lower[i, j] = wp.sqrt(rest)
            else:
                lower[i, j] = rest / lower[j, j]
    y = wp.spatial_vector()
    for i in range(6):
        rest = right[i]
        for m in range(i):
            rest = rest - lower[i, m] * y[m]
        y[i] = rest / lower[i, i]
    for reverse in range(6):
        i = 5 - reverse
        rest = y[i]
        for m in range(i + 1, 6):
            rest = rest - lower[m, i] * y[m]
        y[i] = rest / lower[i, i]
    return y


@wp.func
def _column(robot: Robot, world: int, joint: int, point: wp.vec3) -> wp.spatial_vector:
    """The Jacobian's column of a joint: the point's displacement and the link's rotation per radian."""
    axis = robot.xaxis[world, joint]
    moved = wp.cross(axis, point - robot.xanchor[world, joint])
    return wp.spatial_vector(moved[0], moved[1], moved[2], axis[0], axis[1], axis[2])


@wp.func
def _set_joint_targets(arm: Arm, robot: Robot, world: int, pos: wp.vec3, error: wp.spatial_vector) -> None:
    """ctrl of the arm's joints, by damped least squares; see `control.joint_targets`."""
    gram = wp.static(control.DAMPING**2) * wp.identity(n=6, dtype=float)
    residual = error
    for joint in range(arm.home_rad.shape[0]):
        column = _column(robot, world, joint, pos)
        gram = gram + wp.outer(column, column)
        posture = wp.static(control.POSTURE_GAIN) * (arm.home_rad[joint] - robot.qpos[world, joint])
        residual = residual - posture * column
    solution = _solve(gram, residual)
    for joint in range(arm.home_rad.shape[0]):
        now = robot.qpos[world, joint]
        posture = wp.static(control.POSTURE_GAIN) * (arm.home_rad[joint] - now)
        target = now + posture + wp.dot(_column(robot, world, joint, pos), solution)
        robot.ctrl[world, joint] = wp.clamp(target, arm.lower_rad[joint], arm.upper_rad[joint])


@wp.kernel
def control_tick(
    arm: Arm,
    robot: Robot,
    aim: Aim,
    actions: wp.array3d[float],  # [N, k, 7] in [-1, 1]
    step: wp.array[int],  # [N], index of the world's action in the chunk
    moving: wp.array[wp.bool],  # [N]
    tick: int,  # 1..TICKS
) -> None:
    """Set ctrl of the moving worlds for a tick of their action."""
    world = wp.tid()
    if not moving[world]:
        return
    pos = robot.site_xpos[world, arm.tcp_site]
    mat = robot.site_xmat[world, arm.tcp_site]
    if tick == 1:
        aim.start_pos[world] = pos
        aim.goal_mat[world] = mat
    i = step[world]
    move = wp.vec3(actions[world, i, 0], actions[world, i, 1], actions[world, i, 2])
    turn = wp.vec3(actions[world, i, 3], actions[world, i, 4], actions[world, i, 5])
    start = aim.start_pos[world]
    goal = start + arm.position_scale_m * move
    goal = wp.min(wp.max(goal, arm.workspace_low_m), arm.workspace_high_m)
    goal_mat = _matrix_of(arm.rotation_scale_rad / wp.static(float(control.TICKS)) * turn) * aim.goal_mat[world]
    aim.goal_mat[world] = goal_mat
    pos_error = start + float(tick) / wp.static(float(control.TICKS)) * (goal - start) - pos
    turn_error = _rotation_vector(goal_mat, mat)
    error = wp.spatial_vector(pos_error[0], pos_error[1], pos_error[2], turn_error[0], turn_error[1], turn_error[2])
    _set_joint_targets(arm, robot, world, pos, error)
    for finger in range(arm.num_fingers):
        target = arm.finger_travel_m * (1.0 - actions[world, i, 6]) / 2.0
        robot.ctrl[world, arm.home_rad.shape[0] + finger] = target
