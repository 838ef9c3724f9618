"""One table for interactive use: poses for a 3-D viewer, and external forces on the things that lie on it.

A TableScene owns its model and data, so one thread may use it while another steps the world; the two exchange only
copied states.

Shape letters: B bodies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

from envs.tabletop.arm.control import CONTROL_DT_S
from envs.tabletop.world import TabletopWorld

_STIFFNESS_PER_S2 = 0.25 / CONTROL_DT_S**2
_DAMPING_PER_S = 1.0 / CONTROL_DT_S
"""Gains for dragging, critically damped. The force is constant for a control period; stiffer, it would oscillate."""
_REACH_M = 0.25
"""The dragging force is limited to its value at this distance."""


@dataclass(frozen=True, kw_only=True)
class Poses:
    """Poses of all bodies in the world frame."""

    pos_m: NDArray[np.float64]
    """[B, 3]"""
    quat: NDArray[np.float64]
    """[B, 4], w first."""
    tool_m: NDArray[np.float64]
    """Point between the fingertips, [3]."""

    def towards(self, other: Poses, share: float) -> Poses:
        """Interpolation by the fraction `share` towards nearby poses."""
        opposite = (self.quat * other.quat).sum(axis=1, keepdims=True) < 0  # q and -q are the same rotation
        quat = (1 - share) * self.quat + share * np.where(opposite, -other.quat, other.quat)
        return Poses(
            pos_m=(1 - share) * self.pos_m + share * other.pos_m,
            quat=quat / np.linalg.norm(quat, axis=1, keepdims=True),
            tool_m=(1 - share) * self.tool_m + share * other.tool_m,
        )


class TableScene:
    """The episode that runs in a world of one table: its model, and the poses of any of its states."""

    def __init__(self, world: TabletopWorld) -> None:
        """To be called in the thread that steps the world."""
        episode, scene = world.episode(0), world.scene
        self.spec = episode.spec
        self.model: mujoco.MjModel = world.sim.batch.get_model(0)
        """The model with the episode's colours and sizes."""
        self.things: dict[str, int] = {}
        """{name, e.g. "red cube": body id} of the loose objects on the table."""
        if episode.kind == "objects":
            self.things = {episode.object_name(i): body for i, body in enumerate(scene.object_bodies)}
        self.data = mujoco.MjData(self.model)
        self.base_m: NDArray[np.float64] = self.model.body_pos[scene.base_body].copy()
        """Origin of the arm's base frame, in which the tool is observed, [3]."""
        self._tool = scene.tcp_site

    def poses(self, state: NDArray[np.float64]) -> Poses:
        """Poses at a state from `ExternalForces.state`."""
        data = self.data
        mujoco.mj_setState(self.model, data, state, mujoco.mjtState.mjSTATE_INTEGRATION.value)
        mujoco.mj_kinematics(self.model, data)
        return Poses(pos_m=data.xpos.copy(), quat=data.xquat.copy(), tool_m=data.site_xpos[self._tool].copy())


class ExternalForces:
    """Applies external forces to the things of a world of one table. To be used in the thread that steps it."""

    def __init__(self, world: TabletopWorld) -> None:
        self._model = world.scene.model
        self._batch = world.sim.batch
        self._force = self._batch.bind("xfrc_applied")[0]  # [B, 6], live
        self._velocity = self._batch.bind("qvel")[0]
        self._position = self._batch.bind("qpos")[0]

    def state(self) -> NDArray[np.float64]:
        """A copy of the full simulation state."""
        return self._batch.state[0].copy()

    def apply(self, targets: Mapping[int, NDArray[np.float64]], pushes: Mapping[int, NDArray[np.float64]]) -> None:
        """Apply forces during the next control period; forces on other bodies become 0.

        Args:
            targets: {body: position [3] that it is pulled to, with gravity compensated}.
            pushes: {body: change of velocity [3] in m/s, applied as a force over the period}.
        """
        self._force[:] = 0.0
        for body, target in targets.items():
            first, dof = self._model.jnt_qposadr[self._joint(body)], self._model.jnt_dofadr[self._joint(body)]
            way = target - self._position[first : first + 3]
            way *= min(1.0, _REACH_M / max(_REACH_M, float(np.linalg.norm(way))))
            wanted = _STIFFNESS_PER_S2 * way - _DAMPING_PER_S * self._velocity[dof : dof + 3] - self._model.opt.gravity
            self._force[body, :3] += self._model.body_mass[body] * wanted
        for body, change in pushes.items():
            self._force[body, :3] += self._model.body_mass[body] * np.asarray(change) / CONTROL_DT_S

    def _joint(self, body: int) -> int:
        return int(self._model.body_jntadr[body])
