"""LIBERO's observations: frames, state, action and labels.

Nothing here imports a simulator, because both interpreters import this module.

Shape letters: L localization dims.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from envs.suites.hosted.quality import Quality
from envs.types import CameraSpec, VectorSpec, WorldSpec, positions_and_places

CAMERAS = {"front": "agentview", "wrist": "robot0_eye_in_hand"}
"""{name: the suite's name}: a fixed camera that faces the robot, and the hand's."""

CONTROL_DT_S = 0.05

THINGS = ("object", "place", "second_object", "second_place")
"""What two predicates of the goal name: a thing to move and where to, then the second such pair, or twice the part to
open, close or turn. The first again if the goal has one predicate."""

STATE = VectorSpec(
    names=("hand_x", "hand_y", "hand_z", "hand_turn_x", "hand_turn_y", "hand_turn_z", "left_finger", "right_finger"),
    units=("m",) * 3 + ("rad",) * 3 + ("m",) * 2,
    low=(-1.0, -1.0, 0.0, *(-2 * math.pi,) * 3, -0.001, -0.041),
    high=(1.0, 1.0, 2.0, *(2 * math.pi,) * 3, 0.041, 0.001),
    position=(0, 1, 2),
)
"""Position of the point between the fingertips, rotation vector of the hand as robosuite computes it, and fingers."""

ACTION = VectorSpec(
    names=("hand_dx", "hand_dy", "hand_dz", "hand_turn_x", "hand_turn_y", "hand_turn_z", "gripper"),
    units=("0.05 m/step",) * 3 + ("0.5 rad/step",) * 3 + ("1",),
    low=(-1.0,) * 7,
    high=(1.0,) * 7,
    grippers=(6,),
)
"""Displacement and rotation vector of the hand's goal, in the world's axes; the gripper closes above 0."""


FOV_DEG = {"front": 45.0, "wrist": 75.0}

FIXED_CAMERAS = {
    "tabletop": ((0.658613174683477, 0.0, 1.610350024037242), 0.6282664504107285),
    "floor": ((0.8965773716836134, 0.0, 0.65), 0.5287697435534315),
}
"""{arena: position of "front", sine of the angle by which it looks down}; it faces the robot, towards -x."""
ARENAS = {"spatial": "tabletop", "goal": "tabletop", "object": "floor"}
"""{suite: its only arena}. Those of "10" and "90" have several, in which the camera stands elsewhere."""


@dataclass(frozen=True, kw_only=True)
class Sensor:
    """How frames are rendered: square, and turned by 180 degrees as published evaluations turn them.

    robosuite's frames are upside down, so what a policy sees is upright and mirrored.
    """

    size_px: int
    quality: Quality
    rendered_per_px: int = 1
    """A pixel is the mean of so many times so many rendered ones."""

    @classmethod
    def of(cls, content: dict[str, Any]) -> Self:
        """The inverse of `dataclasses.asdict`."""
        quality = Quality(**content["quality"])
        return cls(size_px=content["size_px"], rendered_per_px=content["rendered_per_px"], quality=quality)

    @property
    def rendered_px(self) -> int:
        """The side of the square that is rendered."""
        return self.size_px * self.rendered_per_px

    def reduced(self, rendered: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The frame [size_px, size_px, 3] of what was rendered, [rendered_px, rendered_px, 3]."""
        if self.rendered_per_px == 1:
            return rendered
        blocks = rendered.reshape(self.size_px, self.rendered_per_px, self.size_px, self.rendered_per_px, 3)
        return np.rint(blocks.mean((1, 3))).astype(np.uint8)

    @property
    def localization(self) -> VectorSpec:
        """Positions of THINGS in the world, then their image coordinates in every camera's frame."""
        return positions_and_places(THINGS, list(CAMERAS), 3.0)

    def world_spec(self, suites: Collection[str]) -> WorldSpec:
        """The spec of a world with tasks of those suites; "front" is calibrated if it stands in one place."""
        arenas = {ARENAS.get(suite) for suite in suites}
        arena = arenas.pop() if len(arenas) == 1 else None
        projection = None
        if arena is not None:
            pos_m, down = FIXED_CAMERAS[arena]
            ahead = math.sqrt(1.0 - down * down)
            axes = np.array([[0.0, -down, ahead], [1.0, 0.0, 0.0], [0.0, ahead, down]])
            projection = tuple(projection_of(np.array(pos_m), axes, FOV_DEG["front"]).ravel().tolist())
        of_camera = {"front": projection, "wrist": None}
        return WorldSpec(
            cameras=tuple(
                CameraSpec(name=name, height=self.size_px, width=self.size_px, projection=of_camera[name])
                for name in CAMERAS
            ),
            state=STATE,
            action=ACTION,
            localization=self.localization,
            control_dt_s=CONTROL_DT_S,
        )


def projection_of(pos_m: NDArray[np.float64], axes: NDArray[np.float64], fov_deg: float) -> NDArray[np.float64]:
    """The projection [3, 4] of CameraSpec, of a camera's frame as a policy sees it.

    Args:
        pos_m: [3].
        axes: [3, 3]; its columns are the camera's right, up and backward.
        fov_deg: vertical field of view.
    """
    edge = math.tan(math.radians(fov_deg) / 2)
    mirrored = np.diag((-1.0, -1.0, -edge))  # right, up, backward -> u w, v w, w
    return mirrored @ axes.T @ np.hstack((np.eye(3), -pos_m[:, None]))


PUBLISHED = Sensor(size_px=256, quality=Quality(shadows=True, samples=4))
"""The frames of published evaluations."""

PUBLISHED_128 = Sensor(size_px=128, rendered_per_px=2, quality=PUBLISHED.quality)
"""The same frames at the size of FAST, to evaluate a policy on them that was trained on those."""

FAST = Sensor(size_px=128, quality=Quality(cell_m=0.004, cell_share=0.02, textured=True, texture_px=512))
"""Without shadows, reflections and multisampling, of decimated meshes: 10 times as fast."""
