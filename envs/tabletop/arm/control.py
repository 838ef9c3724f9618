"""From an action to joint targets: end-effector deltas by damped least squares.

    dq = J^T (J J^T + lambda^2 I)^-1 e + (I - J^+ J) k (q_home - q)

(Nakamura & Hanafusa 1986; Wampler 1986), e the pose error of the tool centre point. An action asks for a displacement
from where the gripper is; it is walked in `TICKS` equal parts, each with its own Jacobian.

Shape letters: n worlds, A action dims.
"""

from __future__ import annotations

from array_api_compat import array_namespace

from envs.arrays import constant
from envs.tabletop.arm.panda import FINGER_OPEN_M, HOME_QPOS_RAD, LINKS, NUM_JOINTS
from envs.types import Array, VectorSpec

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
    grippers=(6,),
)

_LOWER = tuple(link.joint_range_rad[0] + 0.01 for link in LINKS)
_UPPER = tuple(link.joint_range_rad[1] - 0.01 for link in LINKS)
_IDENTITY_3, _IDENTITY_6 = (tuple(tuple(float(i == j) for j in range(n)) for i in range(n)) for n in (3, 6))


def finger_target_m(gripper_action: Array) -> Array:
    """Position target of each finger for the last action dimension, [n] -> [n]."""
    return FINGER_OPEN_M * (1 - gripper_action) / 2


def rotation_vector(to_mat: Array, from_mat: Array) -> Array:
    """World-frame rotation vector that turns `from_mat` into `to_mat`, [n, 3, 3] x [n, 3, 3] -> [n, 3].

    Small angles are exact to third order, large ones have the right direction.
    """
    xp = array_namespace(to_mat)
    turn = to_mat @ from_mat.mT
    axis = (
        xp.stack((turn[:, 2, 1] - turn[:, 1, 2], turn[:, 0, 2] - turn[:, 2, 0], turn[:, 1, 0] - turn[:, 0, 1]), axis=-1)
        / 2
    )
    sine = xp.linalg.vector_norm(axis, axis=1, keepdims=True)
    cosine = (xp.linalg.trace(turn)[:, None] - 1) / 2
    angle = xp.atan2(sine, cosine)
    return xp.where(sine > 1e-9, axis / sine.clip(1e-9), axis) * angle


def matrix_of(rotation: Array) -> Array:
    """Rotation matrices of rotation vectors (Rodrigues), [n, 3] -> [n, 3, 3]."""
    xp = array_namespace(rotation)
    angle = xp.linalg.vector_norm(rotation, axis=1)[:, None, None]
    x, y, z = (rotation / angle[:, :, 0].clip(1e-12)).T
    zero = xp.zeros_like(x)
    cross = xp.stack((zero, -z, y, z, zero, -x, -y, x, zero), axis=1).reshape(-1, 3, 3)
    return constant(_IDENTITY_3, rotation) + xp.sin(angle) * cross + (1 - xp.cos(angle)) * (cross @ cross)


def arm_jacobian(
    joint_axis: Array,  # [n, 7, 3] in the world
    joint_anchor_m: Array,  # [n, 7, 3] in the world
    point_m: Array,  # [n, 3] in the world, on the last link
) -> Array:
    """Translation over rotation of a point per radian of each hinge: [axis x (point - anchor); axis], [n, 6, 7]."""
    xp = array_namespace(joint_axis)
    translation = xp.linalg.cross(joint_axis, point_m[:, None] - joint_anchor_m)
    return xp.concat((translation, joint_axis), axis=2).mT


def joint_targets(
    joint_pos_rad: Array,  # [n, 7]
    jacobian: Array,  # [n, 6, 7]
    error: Array,  # [n, 6] metres, radians
) -> Array:
    """Joint position targets that remove the pose error, within the joint limits, [n, 7]."""
    xp = array_namespace(jacobian)
    transposed = jacobian.mT
    gram = jacobian @ transposed + DAMPING**2 * constant(_IDENTITY_6, jacobian)
    posture = POSTURE_GAIN * (constant(HOME_QPOS_RAD, joint_pos_rad) - joint_pos_rad)
    # One solve serves both terms: J^T G^-1 (e - J p) + p is the damped solution plus the posture's null-space part.
    residual = error[:, :, None] - jacobian @ posture[:, :, None]
    step = posture + (transposed @ xp.linalg.solve(gram, residual))[:, :, 0]
    assert step.shape[1] == NUM_JOINTS
    return (joint_pos_rad + step).clip(constant(_LOWER, step), constant(_UPPER, step))
