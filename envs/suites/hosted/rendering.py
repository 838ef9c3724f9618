"""Rendering in a suite's own process: our own OpenGL context, which holds the meshes of one model at a time.

Shape letters: H x W pixels.
"""

from __future__ import annotations

import copy
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from envs.simulation.gl import gl_context
from envs.suites.hosted.decimation import Decimation, shrink_textures
from envs.suites.hosted.quality import Quality


class FrameRenderer:
    """Renders fixed and moving cameras of a model; call `load` before `render`."""

    def __init__(self, width_px: int, height_px: int, quality: Quality, option: mujoco.MjvOption | None = None) -> None:
        """
        Args:
            width_px: the largest width of what is rendered.
            height_px: the largest height.
            option: what is visible; MuJoCo's default if None.
        """
        self._width, self._height = width_px, height_px
        self._quality = quality
        self._option = option or mujoco.MjvOption()
        self._decimation = Decimation(quality.cell_m, cell_share=quality.cell_share, textured=quality.textured)
        self._gl: Any = None
        self._context: Any = None
        self._scene: Any = None
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED.value

    def load(self, model: mujoco.MjModel) -> None:
        """Upload the model's meshes and textures to OpenGL, replacing those of the last model."""
        if self._gl is None:
            self._gl = gl_context(self._width, self._height)
            self._gl.make_current()
        if self._context is not None:
            self._context.free()
        quality, uploaded = self._quality, copy.copy(model)
        if quality.cell_m:
            self._decimation.apply(uploaded)
        if quality.texture_px:
            shrink_textures(uploaded, quality.texture_px)
        uploaded.vis.quality.offsamples = quality.samples
        if not quality.shadows:
            uploaded.vis.quality.shadowsize = 1  # else OpenGL allocates 64 MB for them
        uploaded.vis.global_.offwidth, uploaded.vis.global_.offheight = self._width, self._height
        self._context = mujoco.MjrContext(uploaded, mujoco.mjtFontScale.mjFONTSCALE_150.value)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._context)
        self._scene = mujoco.MjvScene(model, maxgeom=model.ngeom + model.nsite + 32)
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            self._scene.flags[flag] = quality.shadows

    def render(
        self,
        model: mujoco.MjModel,
        data: mujoco.MjData,
        camera: str,
        whole: mujoco.MjrRect,
        shape: tuple[int, ...],
    ) -> NDArray[np.uint8]:
        """Pixels as OpenGL has them, uint8 [H, W, 3] RGB: the first row is the lowest.

        Args:
            data: with kinematics that are up to date.
            whole: where the camera's whole frame lies; only what is inside [H, W] is rendered.
            shape: [H, W, 3].
        """
        self._camera.fixedcamid = model.camera(camera).id
        everything = mujoco.mjtCatBit.mjCAT_ALL.value
        mujoco.mjv_updateScene(model, data, self._option, None, self._camera, everything, self._scene)
        mujoco.mjr_render(whole, self._scene, self._context)
        pixels = np.empty(shape, np.uint8)
        mujoco.mjr_readPixels(pixels, None, mujoco.MjrRect(0, 0, shape[1], shape[0]), self._context)
        return pixels
