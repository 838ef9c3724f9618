"""Privileged labels for training: where the things are that the instruction names. Never an input of a policy.

Shape letters: n worlds, L label numbers, C cameras.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from envs.tabletop.scene import CAMERAS, Scene
from envs.types import VectorSpec

THINGS = ("target", "goal")
"""The thing to act on, and the place to bring it to."""

OUTSIDE = 2.0
"""Frame coordinates are limited to this; what lies behind the camera is there."""

LOCALIZATION = VectorSpec(
    names=(
        *(f"{thing}_{axis}" for thing in THINGS for axis in "xyz"),
        *(f"{thing}_{camera.name}_{axis}" for camera in CAMERAS for thing in THINGS for axis in "uv"),
    ),
    units=(*("m",) * 6, *("half frame",) * (4 * len(CAMERAS))),
    low=(*(-1.5,) * 6, *(-OUTSIDE,) * (4 * len(CAMERAS))),
    high=(*(1.5,) * 6, *(OUTSIDE,) * (4 * len(CAMERAS))),
)
"""Positions in the arm's base frame, then where they appear in each camera's frame: u to the right, v down, -1 and 1 at
the frame's edges."""


def read_labels(
    field: Mapping[str, NDArray[np.float64]],
    scene: Scene,
    worlds: NDArray[np.int64],
    places: NDArray[np.float64],  # [n, 2, 3] THINGS in the table frame, metres
    base_height_m: NDArray[np.float64],  # [n]
) -> NDArray[np.float32]:
    """Labels of n worlds, [n, L]."""
    in_base_frame = places.copy()
    in_base_frame[:, :, 2] -= base_height_m[:, None]
    columns = [in_base_frame.reshape(len(worlds), -1)]
    for camera, spec in zip(scene.camera_ids, CAMERAS, strict=True):
        position = field["cam_xpos"][worlds, camera]  # [n, 3]
        axes = field["cam_xmat"][worlds, camera].reshape(-1, 3, 3)  # columns: right, up, backward
        half_height = np.tan(np.deg2rad(scene.model.cam_fovy[camera]) / 2)
        half_width = half_height * spec.width / spec.height
        right, up, backward = np.moveaxis((places - position[:, None]) @ axes, -1, 0)  # [n, 2] each
        ahead = np.maximum(-backward, 1e-6)
        frame = np.stack((right / ahead / half_width, -up / ahead / half_height), axis=-1)  # [n, 2, 2]
        frame[backward > 0] = OUTSIDE
        columns.append(np.clip(frame, -OUTSIDE, OUTSIDE).reshape(len(worlds), -1))
    return np.concatenate(columns, axis=1).astype(np.float32)
