"""Meta-World's frames: crops of one fixed camera, rotated by 180 degrees."""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray

from envs.suites.hosted.rendering import FrameRenderer
from envs.suites.metaworld.sensor import CAMERA, Sensor, View


def renderer_of(sensor: Sensor) -> FrameRenderer:
    """A renderer of the sensor's views."""
    width, height = (max(getattr(view, side) for view in sensor.views) for side in ("width_px", "height_px"))
    return FrameRenderer(width, height, sensor.quality)


def render(
    renderer: FrameRenderer, model: mujoco.MjModel, data: mujoco.MjData, view: View, out: NDArray[np.uint8]
) -> None:
    """Render one view to out, uint8 [H, W, 3] RGB; the kinematics of `data` must be up to date."""
    # OpenGL counts rows from the bottom and the frame is rotated by 180 degrees: its first column is our last.
    left = view.whole_px - view.left_px - view.width_px
    whole = mujoco.MjrRect(-left, -view.top_px, view.whole_px, view.whole_px)
    out[:] = renderer.render(model, data, CAMERA, whole, out.shape)[:, ::-1]
