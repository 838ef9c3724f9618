"""Episode: everything sampled for one episode, and the colours and directions to sample from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from envs.tabletop.episodes.variations import Look, Pose
from envs.types import EpisodeSpec

COLOURS = {
    "red": (0.80, 0.09, 0.08),
    "green": (0.10, 0.58, 0.16),
    "blue": (0.10, 0.22, 0.80),
    "yellow": (0.92, 0.80, 0.10),
    "purple": (0.52, 0.14, 0.66),
}
DIRECTIONS = {"left": (0.0, 1.0), "right": (0.0, -1.0), "away": (1.0, 0.0), "closer": (-1.0, 0.0)}
"""Unit vectors on the table, seen from the arm."""
DIRECTION_WORDS = {
    "left": "to the left",
    "right": "to the right",
    "away": "away from the robot",
    "closer": "closer to the robot",
}
"""The same in instructions."""


def _nowhere() -> NDArray[np.float64]:
    return np.empty((0, 2))


@dataclass(frozen=True, kw_only=True)
class Episode:
    """Everything sampled for one episode; fields of the other kind of table keep their defaults.

    Indices refer to objects, receptacles, drawers or buttons, depending on the task.
    """

    spec: EpisodeSpec
    instruction: str
    kind: Literal["objects", "fixtures"]
    target: int
    """Index of the thing to act on."""
    goal: int
    """Index of its destination (a receptacle or another object), or the sense of rotation (0 left, 1 right)."""
    direction: str = "left"
    """A key of DIRECTIONS for tasks that name one."""
    colours: tuple[str, ...]
    """Colours of the objects or of the buttons."""
    shapes: tuple[str, ...] = ()
    object_xy_m: NDArray[np.float64] = field(default_factory=_nowhere)  # [O, 2]
    receptacle: str = ""
    receptacle_colours: tuple[str, ...] = ()
    receptacle_xy_m: NDArray[np.float64] = field(default_factory=_nowhere)  # [R, 2]
    drawer_colours: tuple[str, ...] = ()
    drawer_open_m: tuple[float, ...] = ()
    cabinet_xy_m: tuple[float, float] = (0.0, 0.0)
    panel_xy_m: tuple[float, float] = (0.0, 0.0)
    dial_xy_m: tuple[float, float] = (0.0, 0.0)
    look: Look
    pose: Pose

    def object_name(self, index: int) -> str:
        """A name such as "red cube"."""
        return f"{self.colours[index]} {self.shapes[index]}"

    def receptacle_name(self, index: int) -> str:
        """A name such as "blue bowl" or "blue zone"."""
        return f"{self.receptacle_colours[index]} {self.receptacle}"
