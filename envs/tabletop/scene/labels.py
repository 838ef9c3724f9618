"""Privileged labels for training: positions of the things that the instruction names. Never a policy input.

Shape letters: n worlds, L label numbers, C cameras.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from array_api_compat import array_namespace

from envs.tabletop.scene.scene import CAMERAS, Scene
from envs.types import OUTSIDE, Array, CameraSpec, positions_and_places

FARTHEST_M = 1.5
"""Positions are clipped to this: an object pushed off the table keeps falling."""

LOCALIZATION = positions_and_places(("target", "goal"), [camera.name for camera in CAMERAS], FARTHEST_M)
"""The thing to act on, and its destination: positions in the arm's base frame, and places in each camera's frame."""


def read_labels(
    field: Mapping[str, Array],
    scene: Scene,
    cameras: Sequence[CameraSpec],
    worlds: Array,
    places: Array,  # [n, 2, 3] target and goal in the table frame, metres
    base_height_m: Array,  # [n]
) -> Array:
    """Labels of n worlds, float32 [n, L], in the frames of these cameras; in its usual frame where one is not shown."""
    shown = {camera.name: camera for camera in cameras}
    xp = array_namespace(places)
    above_base = places[:, :, 2:] - base_height_m[:, None, None]
    in_base = xp.concat((places[:, :, :2], above_base), axis=-1).clip(-FARTHEST_M, FARTHEST_M)
    columns = [in_base.reshape(len(worlds), -1)]
    for camera, usual in zip(scene.camera_ids, CAMERAS, strict=True):
        spec = shown.get(usual.name, usual)
        position = field["cam_xpos"][worlds, camera]  # [n, 3]
        axes = field["cam_xmat"][worlds, camera].reshape(-1, 3, 3)  # columns: right, up, backward
        half_height = math.tan(math.radians(scene.model.cam_fovy[camera]) / 2)
        half_width = half_height * spec.width / spec.height
        in_camera = (places - position[:, None]) @ axes
        right, up, backward = (in_camera[:, :, i] for i in range(3))  # [n, 2] each
        ahead = (-backward).clip(1e-6)
        frame = xp.stack((right / ahead / half_width, -up / ahead / half_height), axis=-1)  # [n, 2, 2]
        frame[backward > 0] = OUTSIDE
        columns.append(frame.clip(-OUTSIDE, OUTSIDE).reshape(len(worlds), -1))
    return xp.astype(xp.concat(columns, axis=1), xp.float32)
