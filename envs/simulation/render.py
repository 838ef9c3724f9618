"""Camera frames of many simulations through one OpenGL context.

The context is created at the first frame, in the process and thread that renders it. Shadows, reflections and
multisampling are off: on a software renderer they make a frame six to ten times slower. Kinematics are recomputed from
the simulation's state, so a frame is never stale. A software renderer also processes the vertices of geoms outside the
image, so geoms outside a camera's view are culled.

The headlight stays at the first camera: a light that moved with the gripper would change how colours appear.

Shape letters: n simulations in a call, G geoms, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import mujoco
import numpy as np
from numpy.typing import NDArray

from envs.simulation.gl import gl_context
from envs.types import CameraSpec

if TYPE_CHECKING:
    from mujoco.batch import Batch

_SHOWN, _UNSEEN = 0, mujoco.mjNGROUP - 1
"""Geom groups: rendered, and culled."""


class BatchRenderer:
    """Renders any simulation of a batch, with its per-simulation model fields, from named cameras."""

    def __init__(
        self, batch: Batch, model_field: Mapping[str, NDArray[np.generic]], cameras: Sequence[CameraSpec]
    ) -> None:
        self._batch = batch
        self._model_field = model_field
        self._cameras = tuple(cameras)
        self._model = batch.get_model(0)
        self._model.vis.quality.offsamples = 0
        self._model.vis.global_.offwidth = max((c.width for c in cameras), default=1)
        self._model.vis.global_.offheight = max((c.height for c in cameras), default=1)
        self._data = mujoco.MjData(self._model)
        self._state_spec = int(mujoco.mjtState.mjSTATE_INTEGRATION)
        self._views = {c.name: _View(self._model, c) for c in cameras}
        self._option = mujoco.MjvOption()
        self._option.geomgroup[:] = np.arange(mujoco.mjNGROUP) == _SHOWN
        self._context: _Context | None = None

    def render(self, sims: Sequence[int]) -> dict[str, NDArray[np.uint8]]:
        """Frames of the current states, {camera: uint8 [n, H, W, 3] RGB}."""
        frames = {c.name: np.empty((len(sims), c.height, c.width, 3), np.uint8) for c in self._cameras}
        if not frames:
            return frames
        if self._context is None:
            self._context = _Context(self._model)
        self._context.gl.make_current()
        for row, sim in enumerate(sims):
            for name, values in self._model_field.items():
                getattr(self._model, name)[:] = values[sim]
            mujoco.mj_setState(self._model, self._data, self._batch.state[sim], self._state_spec)
            mujoco.mj_kinematics(self._model, self._data)
            mujoco.mj_camlight(self._model, self._data)
            for name, view in self._views.items():
                self._draw(view, self._context, frames[name][row])
        return frames

    def close(self) -> None:
        """Free the context; a later `render` creates a new one."""
        if self._context is not None:
            self._context.free()
            self._context = None

    def _draw(self, view: _View, context: _Context, out: NDArray[np.uint8]) -> None:
        first = next(iter(self._views.values()))
        self._model.geom_group[:] = np.where(view.sees(self._data), _SHOWN, _UNSEEN)
        everything = mujoco.mjtCatBit.mjCAT_ALL.value
        mujoco.mjv_updateScene(self._model, self._data, self._option, None, first.camera, everything, context.scene)
        mujoco.mjv_updateCamera(self._model, self._data, view.camera, context.scene)
        mujoco.mjr_render(view.rect, context.scene, context.mjr)
        mujoco.mjr_readPixels(view.upside_down, None, view.rect, context.mjr)
        out[:] = view.upside_down[::-1]


class _View:
    """One camera, given by its vertical field of view."""

    def __init__(self, model: mujoco.MjModel, spec: CameraSpec) -> None:
        self.camera = mujoco.MjvCamera()
        self.camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self.camera.fixedcamid = self._id = model.camera(spec.name).id
        self.rect = mujoco.MjrRect(0, 0, spec.width, spec.height)
        self.upside_down = np.empty((spec.height, spec.width, 3), np.uint8)  # OpenGL's origin is at the bottom
        up = np.deg2rad(model.cam_fovy[self._id]) / 2
        side = np.arctan(np.tan(up) * spec.width / spec.height)
        # Outward normals of the view frustum's sides: a camera looks along its -z, x is right and y up.
        self._sides = np.array(
            [(sign * np.cos(side), 0, np.sin(side)) for sign in (-1, 1)]
            + [(0, sign * np.cos(up), np.sin(up)) for sign in (-1, 1)]
        ).T  # [3, 4]
        # A plane has no bounding sphere.
        self._radius_m = np.where(model.geom_rbound > 0, model.geom_rbound, np.inf)

    def sees(self, data: mujoco.MjData) -> NDArray[np.bool_]:
        """Whether each geom's bounding sphere intersects the view frustum, [G]."""
        sides = data.cam_xmat[self._id].reshape(3, 3) @ self._sides
        outside_m = data.geom_xpos @ sides - data.cam_xpos[self._id] @ sides  # [G, 4]
        return outside_m.max(axis=1) <= self._radius_m


class _Context:
    def __init__(self, model: mujoco.MjModel) -> None:
        self.gl = gl_context(model.vis.global_.offwidth, model.vis.global_.offheight)
        self.gl.make_current()
        self.mjr = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self.mjr)
        self.scene = mujoco.MjvScene(model, maxgeom=model.ngeom + 32)
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            self.scene.flags[flag] = 0

    def free(self) -> None:
        self.gl.make_current()
        self.mjr.free()
        self.gl.free()
