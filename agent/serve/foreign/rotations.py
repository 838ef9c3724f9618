"""Conventions of a rotation, as third-party policies and states have them.

    axis_angle          rotation vector, radians; of the two signs of a quaternion, the one that turns by at most pi
    euler_xyz           roll, pitch, yaw about fixed axes x, y, z, radians
    quat_xyzw, quat_wxyz
    rot6d               first column of the rotation matrix, then the second (Zhou et al. 2019)
    rot6d_interleaved   the same, row by row: R00 R01 R10 R11 R20 R21

Shape letters: K rotations.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from envs.errors import UserError

SIZES = {"axis_angle": 3, "euler_xyz": 3, "quat_xyzw": 4, "quat_wxyz": 4, "rot6d": 6, "rot6d_interleaved": 6}
"""{convention: numbers}"""


def check_convention(name: str) -> str:
    """The name itself.

    Raises:
        UserError: there is no such convention.
    """
    if name not in SIZES:
        raise UserError(f"rotation convention {name!r} does not exist; conventions: {', '.join(SIZES)}")
    return name


def convert(values: NDArray[np.floating], source: str, target: str) -> NDArray[np.float32]:
    """Rotations [K, SIZES[source]] in another convention, [K, SIZES[target]].

    Raises:
        UserError: a convention does not exist, or a value is no rotation, e.g. a quaternion of zeros.
    """
    check_convention(source)
    check_convention(target)
    try:
        rotation = _read(np.asarray(values, np.float64), source)
    except ValueError as error:
        raise UserError(f"{np.asarray(values).tolist()} is no rotation as {source}: {error}") from error
    return _written(rotation, target).astype(np.float32)


def _read(values: NDArray[np.float64], source: str) -> Rotation:
    if source == "axis_angle":
        return Rotation.from_rotvec(values)
    if source == "euler_xyz":
        return Rotation.from_euler("xyz", values)
    if source.startswith("quat"):
        return Rotation.from_quat(values, scalar_first=source == "quat_wxyz")
    columns = values.reshape(-1, 2, 3) if source == "rot6d" else values.reshape(-1, 3, 2).swapaxes(1, 2)
    first = _unit(columns[:, 0])
    second = _unit(columns[:, 1] - (first * columns[:, 1]).sum(1, keepdims=True) * first)
    return Rotation.from_matrix(np.stack([first, second, np.cross(first, second)], axis=2))


def _written(rotation: Rotation, target: str) -> NDArray[np.float64]:
    if target == "axis_angle":
        return rotation.as_rotvec()
    if target == "euler_xyz":
        return rotation.as_euler("xyz")
    if target.startswith("quat"):
        return rotation.as_quat(canonical=True, scalar_first=target == "quat_wxyz")
    columns = rotation.as_matrix()[:, :, :2]  # [K, 3, 2]
    return (columns.swapaxes(1, 2) if target == "rot6d" else columns).reshape(-1, 6)


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """
    Raises:
        UserError: one of them is zero.
    """
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    if (norms < 1e-9).any():
        raise UserError("two columns of a rotation matrix are neither zero nor parallel")
    return vectors / norms
