"""The hand's controller: operational-space control (Khatib 1987), equal to robosuite 1.4's OSC_POSE as LIBERO uses it.

robosuite recomputes the kinematics three times per substep and asks Python for every name; this controller reads what
MuJoCo has computed anyway. Its torques differ from robosuite's by rounding.

Two habits of robosuite are part of every published result and kept here. The orientation goal changes only with an
action that rotates, so the hand is held at the orientation of its *rest* pose until then. And the first substep of an
episode that begins in a given state acts on the rest pose's kinematics, which robosuite does not refresh.

Shape letters: D degrees of freedom of the model.
"""

from __future__ import annotations

from typing import NamedTuple

import mujoco
import numpy as np
from numpy.typing import NDArray

SUBSTEPS = 25
"""Physics steps per action: 20 Hz over 2 ms."""
MOVE_M = 0.05
"""Displacement of the hand's goal for an action of 1."""
TURN_RAD = 0.5
"""Rotation of the hand's goal for an action of 1, as an element of a rotation vector in the world's axes."""

_STIFFNESS, _REST_STIFFNESS = 150.0, 10.0
_DAMPING, _REST_DAMPING = 2 * np.sqrt(_STIFFNESS), 2 * np.sqrt(_REST_STIFFNESS)
_FINGER_SPEED = 0.01
"""Share of the fingers' half range per substep, so that 8 actions open or close them."""
_OPPOSED = np.array([-1.0, 1.0])
_NEWER_FULL_M = "MjData" in str(mujoco.mj_fullM.__doc__)
"""Whether this MuJoCo's mj_fullM takes the data, as newer versions' does."""


class _Kinematics(NamedTuple):
    """What the torques depend on, besides the goal."""

    pos_m: NDArray[np.float64]  # [3], the grip site's
    axes: NDArray[np.float64]  # [3, 3], its columns in the world
    jacobian: NDArray[np.float64]  # [6, 7]
    mass: NDArray[np.float64]  # [7, 7]
    joints_rad: NDArray[np.float64]  # [7]
    speeds: NDArray[np.float64]  # [7]


class Controller:
    """Torques of the arm and positions of the fingers for one action at a time."""

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        """
        Args:
            data: its arm stands in the rest pose, which the null space pulls towards.
        """
        self._model, self._data = model, data
        self._site = model.site("gripper0_grip_site").id
        joints = [model.joint(f"robot0_joint{i}") for i in range(1, 8)]
        first = joints[0]
        self.arm_qpos = slice(int(first.qposadr[0]), int(first.qposadr[0]) + 7)
        self._dofs = slice(int(first.dofadr[0]), int(first.dofadr[0]) + 7)
        self._motors = np.flatnonzero(np.isin(model.actuator_trnid[:, 0], [joint.id for joint in joints]))
        self._low, self._high = model.actuator_ctrlrange[self._motors].T
        fingers = [model.joint(f"gripper0_finger_joint{i}") for i in (1, 2)]
        self.finger_qpos = np.array([joint.qposadr[0] for joint in fingers])
        self._finger_motors = np.array([model.actuator(f"gripper0_gripper_finger_joint{i}").id for i in (1, 2)])
        ranges = model.actuator_ctrlrange[self._finger_motors]
        self._finger_middle, self._finger_reach = ranges.mean(axis=1), (ranges[:, 1] - ranges[:, 0]) / 2
        self._full_jacobian = np.zeros((6, model.nv))
        self._full_mass = np.zeros((model.nv, model.nv))
        self.rest_rad = data.qpos[self.arm_qpos].copy()
        """Joint angles of the rest pose, [7]."""
        self._at_rest = self._kinematics()
        self.goal_axes = self._at_rest.axes
        """Orientation goal of the grip site, [3, 3]."""
        self._goal_pos_m = self._at_rest.pos_m
        self._fingers = np.zeros(2)
        self._fresh = True

    @property
    def pos_m(self) -> NDArray[np.float64]:
        """Position of the grip site between the fingertips, [3], in the world."""
        return self._data.site_xpos[self._site].copy()

    @property
    def axes(self) -> NDArray[np.float64]:
        """Rotation of the grip site, [3, 3]: its columns are the closing direction, y, and the approach direction."""
        return self._data.site_xmat[self._site].reshape(3, 3).copy()

    def begin(self) -> None:
        """Begin an episode in the state of the data."""
        self.goal_axes = self._at_rest.axes
        self._fingers = np.zeros(2)
        self._fresh = True

    def step(self, action: NDArray[np.floating]) -> None:
        """Execute an action, float [7], for SUBSTEPS physics steps.

        Kinematics and contacts of the data are afterwards those before the last integration, as in robosuite.
        """
        model, data = self._model, self._data
        for substep in range(SUBSTEPS):
            mujoco.mj_step1(model, data)
            now = self._at_rest if self._fresh else self._kinematics()
            self._fresh = False
            if substep == 0:
                self._set_goal(action, now)
            data.ctrl[self._motors] = np.clip(self._torques(now), self._low, self._high)
            self._fingers = np.clip(self._fingers + _OPPOSED * (_FINGER_SPEED * np.sign(action[6])), -1.0, 1.0)
            data.ctrl[self._finger_motors] = self._finger_middle + self._finger_reach * self._fingers
            mujoco.mj_step2(model, data)

    def _set_goal(self, action: NDArray[np.floating], now: _Kinematics) -> None:
        self._goal_pos_m = now.pos_m + np.clip(action[:3], -1.0, 1.0) * MOVE_M
        turn = np.clip(action[3:6], -1.0, 1.0) * TURN_RAD
        if turn.any():
            self.goal_axes = rotation(turn) @ now.axes

    def _kinematics(self) -> _Kinematics:
        model, data = self._model, self._data
        jacobian = self._full_jacobian
        mujoco.mj_jacSite(model, data, jacobian[:3], jacobian[3:], self._site)
        if _NEWER_FULL_M:
            mujoco.mj_fullM(model, data, self._full_mass)
        else:
            mujoco.mj_fullM(model, self._full_mass, data.qM)
        return _Kinematics(
            pos_m=self.pos_m,
            axes=self.axes,
            jacobian=jacobian[:, self._dofs].copy(),
            mass=self._full_mass[self._dofs, self._dofs].copy(),
            joints_rad=data.qpos[self.arm_qpos].copy(),
            speeds=data.qvel[self._dofs].copy(),
        )

    def _torques(self, now: _Kinematics) -> NDArray[np.float64]:
        """Torques of the arm's joints, [7]: decoupled force and torque at the hand, gravity, and the null space's."""
        jacobian, speeds = now.jacobian, now.speeds
        wanted = np.empty(6)
        wanted[:3] = _STIFFNESS * (self._goal_pos_m - now.pos_m)
        wanted[3:] = _STIFFNESS * _orientation_error(self.goal_axes, now.axes)
        wanted -= _DAMPING * (jacobian @ speeds)
        inverse = jacobian @ np.linalg.solve(now.mass, jacobian.T)  # of the inertia at the hand, [6, 6]
        blocks = np.stack((inverse[:3, :3], inverse[3:, 3:]))
        wrench = np.linalg.solve(blocks, wanted.reshape(2, 3, 1)).ravel()
        to_rest = _REST_STIFFNESS * (self.rest_rad - now.joints_rad) - _REST_DAMPING * speeds
        wrench -= np.linalg.solve(inverse, jacobian @ to_rest)
        return jacobian.T @ wrench + self._data.qfrc_bias[self._dofs] + now.mass @ to_rest


def rotation(vector_rad: NDArray[np.floating]) -> NDArray[np.float64]:
    """The rotation matrix [3, 3] of a rotation vector that is not zero, by way of a quaternion of float32.

    robosuite rounds there; without it goals would differ by 1e-7 rad per action, which contacts amplify.
    """
    angle = np.linalg.norm(vector_rad)
    quaternion = np.array([np.cos(angle / 2), *(vector_rad / angle * np.sin(angle / 2))], np.float32)  # w first
    scale = np.sqrt(2.0 / float(quaternion @ quaternion))
    quaternion = (quaternion * np.float64(scale)).astype(np.float32)
    (_, wx, wy, wz), (_, xx, xy, xz), (_, _, yy, yz), (*_, zz) = np.outer(quaternion, quaternion)
    return np.array(
        [
            [1.0 - np.float64(yy) - zz, xy - wz, xz + wy],
            [xy + wz, 1.0 - np.float64(xx) - zz, yz - wx],
            [xz - wy, yz + wx, 1.0 - np.float64(xx) - yy],
        ]
    )


def _orientation_error(goal: NDArray[np.float64], axes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Half the sum of the cross products of the axes with their goals, [3]."""
    turn = goal @ axes.T
    return 0.5 * np.array([turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]])
