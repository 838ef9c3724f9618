"""From an action to joint targets: end-effector deltas by damped least squares.

    dq = J^T (J J^T + lambda^2 I)^-1 e + (I - J^+ J) k (q_home - q)

(Nakamura & Hanafusa 1986; Wampler 1986), e the pose error of the tool centre point. An action asks for a displacement
from where the gripper is; it is walked in `TICKS` equal parts, each with its own Jacobian.

Shape letters: n worlds, A action dims.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from envs.tabletop.arm import FINGER_OPEN_M, HOME_QPOS_RAD, LINKS, NUM_JOINTS
from envs.types import VectorSpec

CONTROL_DT_S = 0.1
TICKS = 2
POSITION_SCALE_M = 0.04
ROTATION_SCALE_RAD = 0.2
DAMPING = 0.03
POSTURE_GAIN = 0.1
WORKSPACE_LOW_M = (0.27, -0.34, 0.008)
WORKSPACE_HIGH_M = (0.74, 0.34, 0.45)

ACTION = VectorSpec(
    names=("x", "y", "z", "rot_x", "rot_y", "rot_z", "gripper"),
    units=(*(f"{POSITION_SCALE_M} m/step",) * 3, *(f"{ROTATION_SCALE_RAD} rad/step",) * 3, "-1 open, 1 closed"),
    low=(-1.0,) * 7,
    high=(1.0,) * 7,
)

_LOWER = np.array([link.joint_range_rad[0] for link in LINKS]) + 0.01
_UPPER = np.array([link.joint_range_rad[1] for link in LINKS]) - 0.01
_HOME = np.array(HOME_QPOS_RAD)


def finger_target_m(gripper_action: NDArray[np.float64]) -> NDArray[np.float64]:
    """Position target of each finger for the last action dimension, [n] -> [n]."""
    return FINGER_OPEN_M * (1 - gripper_action) / 2


def rotation_vector(to_mat: NDArray[np.float64], from_mat: NDArray[np.float64]) -> NDArray[np.float64]:
    """World-frame rotation vector that turns `from_mat` into `to_mat`, [n, 3, 3] x [n, 3, 3] -> [n, 3].

    Small angles are exact to third order, large ones have the right direction.
    """
    turn = to_mat @ from_mat.transpose(0, 2, 1)
    axis = (
        np.stack((turn[:, 2, 1] - turn[:, 1, 2], turn[:, 0, 2] - turn[:, 2, 0], turn[:, 1, 0] - turn[:, 0, 1]), -1) / 2
    )
    sine = np.linalg.norm(axis, axis=1, keepdims=True)
    cosine = (np.trace(turn, axis1=1, axis2=2)[:, None] - 1) / 2
    angle = np.arctan2(sine, cosine)
    return np.where(sine > 1e-9, axis / np.maximum(sine, 1e-9), axis) * angle


def matrix_of(rotation: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotation matrices of rotation vectors (Rodrigues), [n, 3] -> [n, 3, 3]."""
    angle = np.linalg.norm(rotation, axis=1)[:, None, None]
    unit = rotation / np.maximum(angle[:, :, 0], 1e-12)
    zero = np.zeros(len(unit))
    x, y, z = unit.T
    cross = np.stack((zero, -z, y, z, zero, -x, -y, x, zero), axis=1).reshape(-1, 3, 3)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross)


def arm_jacobian(
    joint_axis: NDArray[np.float64],  # [n, 7, 3] in the world
    joint_anchor_m: NDArray[np.float64],  # [n, 7, 3] in the world
    point_m: NDArray[np.float64],  # [n, 3] in the world, on the last link
) -> NDArray[np.float64]:
    """Translation over rotation of a point per radian of each hinge: [axis x (point - anchor); axis], [n, 6, 7]."""
    translation = np.cross(joint_axis, point_m[:, None] - joint_anchor_m)
    return np.concatenate((translation, joint_axis), axis=2).transpose(0, 2, 1)


def joint_targets(
    joint_pos_rad: NDArray[np.float64],  # [n, 7]
    jacobian: NDArray[np.float64],  # [n, 6, 7]
    error: NDArray[np.float64],  # [n, 6] metres, radians
) -> NDArray[np.float64]:
    """Joint position targets that remove the pose error, within the joint limits, [n, 7]."""
    transposed = jacobian.transpose(0, 2, 1)
    gram = jacobian @ transposed + DAMPING**2 * np.eye(6)
    posture = POSTURE_GAIN * (_HOME - joint_pos_rad)
    # One solve serves both terms: J^T G^-1 (e - J p) + p is the damped solution plus the posture's null-space part.
    residual = error[:, :, None] - jacobian @ posture[:, :, None]
    step = posture + (transposed @ np.linalg.solve(gram, residual))[:, :, 0]
    assert step.shape[1] == NUM_JOINTS
    return np.clip(joint_pos_rad + step, _LOWER, _UPPER)
