"""Meta-World's observations: frames, state, action and labels.

A view is a crop of the published camera's full frame. Only the crop is rendered, so a crop of 128 x 128 pixels costs
the same whether the full frame is 128 or 300 pixels wide, and things in it are as large as in the full frame.

Nothing here imports a simulator, because both interpreters import this module.

Shape letters: L localization dims.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from envs.suites.hosted.quality import Quality
from envs.types import CameraSpec, VectorSpec, WorldSpec, positions_and_places

CAMERA = "corner2"
CAMERA_POS_M = (0.75, 0.075, 0.7)
"""Position of that camera in published evaluations; its frame is rotated by 180 degrees."""
CAMERA_AXES = (
    (-0.549901329723, 0.376207740619, 0.745705212177),
    (-0.833182756823, -0.30954914217, -0.458242100112),
    (0.058438183601, -0.873296664645, 0.483671287361),
)
"""Its columns are the camera's right, up and backward, before the frame is rotated; euler 3.9, 2.3, 0.6 in the suite's
files."""
CAMERA_FOV_DEG = 60.0

CONTROL_DT_S = 0.0125
"""Five physics steps."""

FAST_QUALITY = Quality(cell_m=0.012)

THINGS = ("object", "second", "goal")
"""The object to move; the task's second object (the first again if it has only one); the goal position."""

STATE = VectorSpec(
    names=("hand_x", "hand_y", "hand_z", "gripper_opening"),
    units=("m", "m", "m", "1"),
    low=(-0.525, 0.348, -0.0525, -1.0),
    high=(0.525, 1.025, 0.7, 1.0),
    position=(0, 1, 2),
)
"""The first four numbers of Meta-World's observation, with its ranges."""

ACTION = VectorSpec(
    names=("hand_dx", "hand_dy", "hand_dz", "gripper_effort"),
    units=("0.01 m/step", "0.01 m/step", "0.01 m/step", "1"),
    low=(-1.0,) * 4,
    high=(1.0,) * 4,
    grippers=(3,),
)
"""Displacement of the mocap point that pulls the hand, and force on the fingers, 1 to close."""


@dataclass(frozen=True, kw_only=True)
class View:
    """A crop of the full frame of CAMERA."""

    name: str = CAMERA
    whole_px: int
    """Side of the full frame, which is square."""
    left_px: int = 0
    top_px: int = 0
    width_px: int
    height_px: int

    @property
    def camera(self) -> CameraSpec:
        """The view as a CameraSpec, with the projection of points in the robot's frame."""
        edge = math.tan(math.radians(CAMERA_FOV_DEG) / 2)
        whole = np.diag((-1.0, 1.0, -edge))  # right, up, backward -> u w, v w, w of the frame rotated by 180 degrees
        size = np.array([self.width_px, self.height_px])
        middle = (self.whole_px - 2 * np.array([self.left_px, self.top_px])) / size - 1
        window = np.block([[np.diag(self.whole_px / size), middle[:, None]], [np.array([[0.0, 0.0, 1.0]])]])
        to_camera = np.transpose(CAMERA_AXES) @ np.hstack((np.eye(3), -np.array(CAMERA_POS_M)[:, None]))
        return CameraSpec(
            name=self.name,
            height=self.height_px,
            width=self.width_px,
            projection=tuple((window @ whole @ to_camera).ravel().tolist()),
        )


@dataclass(frozen=True, kw_only=True)
class Sensor:
    """How frames are rendered."""

    views: tuple[View, ...]
    quality: Quality = FAST_QUALITY

    @classmethod
    def of(cls, content: dict[str, Any]) -> Self:
        """The inverse of `dataclasses.asdict`."""
        return cls(views=tuple(View(**view) for view in content["views"]), quality=Quality(**content["quality"]))

    @property
    def cameras(self) -> tuple[CameraSpec, ...]:
        return tuple(view.camera for view in self.views)

    @property
    def localization(self) -> VectorSpec:
        """Positions of THINGS in the robot's frame, then their image coordinates in every view."""
        return positions_and_places(THINGS, [view.name for view in self.views], 2.0)

    @property
    def world_spec(self) -> WorldSpec:
        return WorldSpec(
            cameras=self.cameras,
            state=STATE,
            action=ACTION,
            localization=self.localization,
            control_dt_s=CONTROL_DT_S,
        )


PUBLISHED = Sensor(views=(View(whole_px=480, width_px=480, height_px=480),), quality=Quality(shadows=True, samples=4))
"""The frames of published evaluations."""

FAST = Sensor(views=(View(whole_px=208, left_px=56, top_px=52, width_px=128, height_px=144),))
"""Without shadows, cropped to the workspace: it contains the objects and goals of every task except the goal of
sweep-v3, which lies off the table, in the same direction in every episode."""
