"""Camera frames of many simulations through one OpenGL context.

The context is created by the first frame, in the process and thread that draws it. Shadows, reflections and
multisampling are off: on a software renderer they cost six to ten times the frame. A frame costs what the drawing
costs: kinematics are recomputed from the simulation's state, nothing else is.

Shape letters: H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import mujoco
import numpy as np
from numpy.typing import NDArray

from envs.gl import gl_context
from envs.types import CameraSpec

if TYPE_CHECKING:
    from mujoco.batch import Batch


class BatchRenderer:
    """Draws any simulation of a batch, with its per-simulation model fields, from named cameras."""

    def __init__(self, batch: Batch, cameras: Sequence[CameraSpec]) -> None:
        self._batch = batch
        self._cameras = tuple(cameras)
        self._model = batch.get_model(0)
        self._model.vis.quality.offsamples = 0
        self._model.vis.global_.offwidth = max(c.width for c in cameras)
        self._model.vis.global_.offheight = max(c.height for c in cameras)
        self._data = mujoco.MjData(self._model)
        self._state_spec = int(mujoco.mjtState.mjSTATE_INTEGRATION)
        self._views = {c.name: _view(self._model, c) for c in cameras}
        self._option = mujoco.MjvOption()
        self._perturb = mujoco.MjvPerturb()
        self._context: _Context | None = None

    def frames(self, sim: int, out: dict[str, NDArray[np.uint8]]) -> None:
        """Draw simulation `sim` as it is now into out[camera], each uint8 [H, W, 3] RGB."""
        if self._context is None:
            self._context = _Context(self._model)
        model, data, scene = self._model, self._data, self._context.scene
        self._batch.get_model(sim, model)
        mujoco.mj_setState(model, data, self._batch.state[sim], self._state_spec)
        mujoco.mj_kinematics(model, data)
        mujoco.mj_camlight(model, data)
        self._context.gl.make_current()
        everything = mujoco.mjtCatBit.mjCAT_ALL.value
        first_camera = next(iter(self._views.values()))[0]
        mujoco.mjv_updateScene(model, data, self._option, self._perturb, first_camera, everything, scene)
        for name, (camera, rect) in self._views.items():
            mujoco.mjv_updateCamera(model, data, camera, scene)
            mujoco.mjr_render(rect, scene, self._context.mjr)
            mujoco.mjr_readPixels(self._context.upside_down(rect), None, rect, self._context.mjr)
            np.copyto(out[name], self._context.upside_down(rect)[::-1])

    def close(self) -> None:
        """Free the context; a later frame makes a new one."""
        if self._context is not None:
            self._context.free()
            self._context = None


class _Context:
    def __init__(self, model: mujoco.MjModel) -> None:
        self.gl = gl_context(model.vis.global_.offwidth, model.vis.global_.offheight)
        self.gl.make_current()
        self.mjr = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self.mjr)
        self.scene = mujoco.MjvScene(model, maxgeom=model.ngeom + 32)
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            self.scene.flags[flag] = 0
        self._buffers: dict[tuple[int, int], NDArray[np.uint8]] = {}

    def upside_down(self, rect: mujoco.MjrRect) -> NDArray[np.uint8]:
        """The buffer that OpenGL, whose origin is at the bottom, writes a frame of that size into."""
        size = (rect.height, rect.width)
        if size not in self._buffers:
            self._buffers[size] = np.empty((*size, 3), np.uint8)
        return self._buffers[size]

    def free(self) -> None:
        self.gl.make_current()
        self.mjr.free()
        self.gl.free()


def _view(model: mujoco.MjModel, spec: CameraSpec) -> tuple[mujoco.MjvCamera, mujoco.MjrRect]:
    camera = mujoco.MjvCamera()
    camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
    camera.fixedcamid = model.camera(spec.name).id
    return camera, mujoco.MjrRect(0, 0, spec.width, spec.height)
