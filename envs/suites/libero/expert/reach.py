"""Whether the hand gets to a pose: past the limits of the arm's joints, and past other things.

The controller drives the hand straight to its goal and knows of no joint limits. An arm that meets one stays there,
although another orientation of the hand, whose fingers are alike, would have served as well. `Reach` follows the way
by kinematics alone. For `crowding` the hand is a box for the fingers and one for the palm; for `way_out` things are
columns over a grid of CELL_M.

Shape letters: P points, O points of everything else. Lengths in metres.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

Array = NDArray[np.float64]
Pose = tuple[Array, Array]
"""Position [3] and axes [3, 3] of the grip site."""

STEP_M, STEP_RAD = 0.05, 0.3
"""Furthest motion per iteration."""
DAMPING = 0.03
TO_REST = 0.1
"""Share of the way to the rest pose per iteration, in the null space."""
MOST_ITERATIONS, LEAST_ITERATIONS = 30, 12
"""At least so many, because the null space goes on moving when the hand has arrived."""
NEAR_M = 0.004
SPARE_RAD = 0.1
"""So far from their limits joints have to stay: the arm's elbow is not quite where these kinematics have it."""
LEVER_M = 0.1
"""A radian counts as much as this distance."""
PALM_M = 0.045
"""Height of the palm's lower side above the grip site, along the hand."""
_FINGERS = np.array([0.062, 0.012, 0.029]), np.array([0.0, 0.0, -0.019])
_PALM = np.array([0.104, 0.034, 0.050]), np.array([0.0, 0.0, -0.050 - PALM_M])
"""Half-sides along the closing axis, side and approach, and the middle in the hand's frame."""
AROUND_M = 0.25
"""Points further from the grip site along an axis are outside the hand."""
CELL_M = 0.01
FREED_M = 0.02
"""How much a thing is lifted before it goes sideways."""
FEW = 4
"""So many points over a thing are its neighbours' edges, not a roof."""
WAYS_M = [r * np.array([np.cos(a), np.sin(a)]) for r in np.arange(0.02, 0.13, 0.01) for a in np.arange(16) * np.pi / 8]
"""Sideways displacements that are tried, the shorter first."""


class Reach:
    """An arm without physics."""

    def __init__(self, model: Any, site: int, joints: Sequence[int], rest_rad: Array) -> None:
        """
        Args:
            model: of the simulation, never changed.
            site: the grip site.
            joints: the arm's seven.
            rest_rad: angles that the null space pulls towards, [7].
        """
        self._model, self._data = model, mujoco.MjData(model)
        self._site, self._rest = site, rest_rad
        self._qpos = model.jnt_qposadr[list(joints)]
        self._dofs = model.jnt_dofadr[list(joints)]
        self._low, self._high = model.jnt_range[list(joints)].T + np.array([[SPARE_RAD], [-SPARE_RAD]])
        self._jacobian = np.zeros((6, model.nv))

    def miss(self, angles_rad: Array, poses: Iterable[Pose]) -> float:
        """How far the hand stays from the worst of several poses, taken one after the other, in metres.

        Joints pass their limits here; what they are beyond counts as distance.

        Args:
            angles_rad: the joints' angles at the beginning, [7].
            poses: where the hand has to go.
        """
        self._data.qpos[self._qpos] = angles_rad
        return max(self._go(pos, axes) for pos, axes in poses)

    def _go(self, pos: Array, axes: Array) -> float:
        """The arm moved toward a pose; how far the hand stays from it, in metres."""
        for k in range(MOST_ITERATIONS):
            error = self._error(pos, axes)
            away = float(np.linalg.norm(error[:3]) + LEVER_M * np.linalg.norm(error[3:]))
            if away < NEAR_M and k >= LEAST_ITERATIONS:
                break
            error[:3] *= min(1.0, STEP_M / max(float(np.linalg.norm(error[:3])), 1e-9))
            error[3:] *= min(1.0, STEP_RAD / max(float(np.linalg.norm(error[3:])), 1e-9))
            mujoco.mj_comPos(self._model, self._data)
            mujoco.mj_jacSite(self._model, self._data, self._jacobian[:3], self._jacobian[3:], self._site)
            jacobian = self._jacobian[:, self._dofs]
            inverse = jacobian.T @ np.linalg.inv(jacobian @ jacobian.T + DAMPING**2 * np.eye(6))
            angles = self._data.qpos[self._qpos]
            rest = TO_REST * (self._rest - angles)
            angles = angles + inverse @ error + rest - inverse @ (jacobian @ rest)
            self._data.qpos[self._qpos] = angles
        angles = self._data.qpos[self._qpos]
        beyond = float(np.maximum(self._low - angles, angles - self._high).max())
        return away + LEVER_M * max(0.0, beyond)

    def _error(self, pos: Array, axes: Array) -> Array:
        """From the hand to a pose: vector and rotation vector, [6]."""
        mujoco.mj_kinematics(self._model, self._data)
        now = self._data.site_xmat[self._site].reshape(3, 3)
        turn = Rotation.from_matrix(axes @ now.T).as_rotvec()
        return np.concatenate([pos - self._data.site_xpos[self._site], turn])


def crowding(points: Array, floor: float, way: Iterable[Array], axes: Array, margin: float = 0.0) -> float:
    """How deep something reaches into the open hand on its way, in metres; 0 for free room.

    Args:
        points: of what has to stay outside, [P, 3].
        floor: height of a surface below which no part of the hand may be.
        way: positions [3] of the grip site.
        axes: of the hand, [3, 3].
        margin: added to the hand on every side.
    """
    depths = [0.0]
    for position in way:
        local = (points[(np.abs(points - position) < AROUND_M).all(1)] - position) @ axes
        for half, middle in (_FINGERS, _PALM):
            depths.append(floor - float((position + axes @ middle - np.abs(axes) @ half)[2]))
            if len(local):
                depths.append(float((half - np.abs(local - middle)).min(1).max()) + margin)
    return max(depths)


class _Columns:
    """A thing's lowest and highest points over each cell of a grid."""

    def __init__(self, points: Array) -> None:
        cells = self._cells(points)
        order = np.argsort(cells, kind="stable")
        self._keys, first = np.unique(cells[order], return_index=True)
        self.low = np.minimum.reduceat(points[order, 2], first)
        self.high = np.maximum.reduceat(points[order, 2], first)

    @staticmethod
    def _cells(points: Array) -> np.ndarray:
        return np.floor(points[:, :2] / CELL_M).astype(int) @ [100_000, 1]

    def over(self, others: Array, above: Array) -> int:
        """How many points are over the thing and higher than `above`, a height for each of its columns."""
        cells = self._cells(others)
        column = np.searchsorted(self._keys, cells).clip(max=len(self._keys) - 1)
        return int(((self._keys[column] == cells) & (others[:, 2] > above[column] + 0.004)).sum())


def way_out(points: Array, others: Array) -> Array:
    """The shortest way sideways [2] after which a thing, a little lifted, can go straight up; zero if it can anyway.

    Args:
        points: of the thing, [P, 3].
        others: of everything else, [O, 3].
    """
    columns = _Columns(points)
    if columns.over(others, columns.high) < FEW:
        return np.zeros(2)
    lifted = others - [0.0, 0.0, FREED_M]
    in_the_way = [columns.over(lifted - [*way, 0.0], columns.low) for way in WAYS_M]
    return WAYS_M[int(np.argmin(in_the_way))]
