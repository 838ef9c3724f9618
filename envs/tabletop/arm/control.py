"""Conversion of actions to joint targets: end-effector deltas by damped least squares.

    dq = J^T (J J^T + lambda^2 I)^-1 e + (I - J^+ J) k (q_home - q)

(Nakamura & Hanafusa 1986; Wampler 1986), e the pose error of the tool centre point. An action is a displacement from
the gripper's current pose; it is executed in `TICKS` equal parts, each with its own Jacobian.

Shape letters: n worlds, J joints of the arm.
"""

from __future__ import annotations

from array_api_compat import array_namespace

from envs.arm import ArmSpec
from envs.arrays import constant
from envs.types import Array, VectorSpec

CONTROL_DT_S = 0.1
TICKS = 2
DAMPING = 0.03
POSTURE_GAIN = 0.1
_LIMIT_MARGIN_RAD = 0.01
"""Distance that targets keep from the joint limits."""

_IDENTITY_3, _IDENTITY_6 = (tuple(tuple(float(i == j) for j in range(n)) for i in range(n)) for n in (3, 6))


def action_spec(arm: ArmSpec) -> VectorSpec:
    """The suite's action space for an arm: displacement and rotation of its tool, and its gripper."""
    return VectorSpec(
        names=("x", "y", "z", "rot_x", "rot_y", "rot_z", "gripper"),
        units=(
            *(f"{arm.position_scale_m} m/step",) * 3,
            *(f"{arm.rotation_scale_rad} rad/step",) * 3,
            "-1 open, 1 closed",
        ),
        low=(-1.0,) * 7,
        high=(1.0,) * 7,
        grippers=(6,),
    )


def finger_target_m(arm: ArmSpec, gripper_action: Array) -> Array:
    """Position target of each finger for the last action dimension, [n] -> [n]."""
    return arm.finger_travel_m * (1 - gripper_action) / 2


def rotation_vector(to_mat: Array, from_mat: Array) -> Array:
    """World-frame rotation vector from `from_mat` to `to_mat`, [n, 3, 3] x [n, 3, 3] -> [n, 3].

    Small angles are exact to third order, large ones have the correct direction.
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
    joint_axis: Array,  # [n, J, 3] in the world
    joint_anchor_m: Array,  # [n, J, 3] in the world
    point_m: Array,  # [n, 3] in the world, on the last link
) -> Array:
    """Translation over rotation of a point per radian of each hinge: [axis x (point - anchor); axis], [n, 6, J]."""
    xp = array_namespace(joint_axis)
    translation = xp.linalg.cross(joint_axis, point_m[:, None] - joint_anchor_m)
    return xp.concat((translation, joint_axis), axis=2).mT


def joint_targets(
    arm: ArmSpec,
    joint_pos_rad: Array,  # [n, J]
    jacobian: Array,  # [n, 6, J]
    error: Array,  # [n, 6] metres, radians
) -> Array:
    """Joint position targets that remove the pose error, within the joint limits, [n, J]."""
    xp = array_namespace(jacobian)
    transposed = jacobian.mT
    gram = jacobian @ transposed + DAMPING**2 * constant(_IDENTITY_6, jacobian)
    posture = POSTURE_GAIN * (constant(arm.home_rad, joint_pos_rad) - joint_pos_rad)
    # One solve serves both terms: J^T G^-1 (e - J p) + p is the damped solution plus the posture's null-space part.
    residual = error[:, :, None] - jacobian @ posture[:, :, None]
    step = posture + (transposed @ xp.linalg.solve(gram, residual))[:, :, 0]
    lower, upper = target_limits_rad(arm)
    return (joint_pos_rad + step).clip(constant(lower, step), constant(upper, step))


def target_limits_rad(arm: ArmSpec) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Lowest and highest joint position targets, [J] each: a margin inside the joint limits."""
    lower = tuple(joint.low_rad + _LIMIT_MARGIN_RAD for joint in arm.joints)
    upper = tuple(joint.high_rad - _LIMIT_MARGIN_RAD for joint in arm.joints)
    return lower, upper
