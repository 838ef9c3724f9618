"""ArmSpec: an arm as data. A new arm is one file that builds an ArmSpec, like envs/tabletop/arm/panda.py, and its MJCF.

Nothing here imports a simulator, so a robot's limits are available without one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from envs.errors import UserError

if TYPE_CHECKING:
    import mujoco

TOOL_SITE = "tcp"
WRIST_CAMERA = "wrist"


@dataclass(frozen=True, kw_only=True)
class Joint:
    """One hinge of an arm."""

    name: str
    low_rad: float
    high_rad: float
    home_rad: float
    """Position at the start of an episode, and the controller's null-space target."""
    max_velocity_rad_s: float
    """Above this the safety filter holds the robot."""

    def __post_init__(self) -> None:
        if not self.low_rad < self.home_rad < self.high_rad:
            raise UserError(
                f"joint {self.name!r} has its home at {self.home_rad} rad, expected within {self.low_rad} .. "
                f"{self.high_rad}"
            )


@dataclass(frozen=True, kw_only=True)
class ArmSpec:
    """An arm with a parallel gripper, as scenes, controllers, scripted experts and safety filters need it.

    Raises:
        UserError: no joint or finger, a joint whose home is out of range, a size or scale that is not above 0, or an
            empty workspace.
    """

    name: str
    model: Callable[[], mujoco.MjSpec]
    """A new model of the arm alone, e.g. from an MJCF file, at the origin and facing +x: `base_body`, the joints and
    then the fingers in the order listed here, position actuators of the same names and order, the site TOOL_SITE and
    the camera WRIST_CAMERA.

    The site is between the fingertips. Its z points out of the hand, down at home; its x points away from the arm at
    home; the fingers open along its y. Links have contype 2: they collide with things (contype 1), not each other.
    Defaults are in classes and there are no options, as the table is added to this model."""
    base_body: str
    """Child of the world body; a world may raise or lower it."""
    joints: tuple[Joint, ...]
    """From the base to the hand."""
    fingers: tuple[str, ...]
    """Slide joints of the gripper: closed at 0, open at finger_travel_m."""
    finger_travel_m: float
    """Per finger; the opening between the pads is the sum."""
    finger_half_m: float
    """Half the depth of the fingers, along the tool's x."""
    position_scale_m: float
    """Displacement of the tool for an action of 1."""
    rotation_scale_rad: float
    """Rotation of the tool for an action of 1."""
    workspace_low_m: tuple[float, float, float]
    """Lower corner of the tool's workspace box, in the table frame."""
    workspace_high_m: tuple[float, float, float]
    reach_m: float
    """Bound on the absolute value of the tool's coordinates in the base frame."""
    max_speed_m_s: float
    """Limit of the real arm for the tool, like the three that follow."""
    max_acceleration_m_s2: float
    max_turn_rad_s: float
    max_turn_rad_s2: float

    def __post_init__(self) -> None:
        if not (self.joints and self.fingers):
            raise UserError(f"arm {self.name!r} has joints {self.joints} and fingers {self.fingers}, expected both")
        for name in ("finger_travel_m", "finger_half_m", "position_scale_m", "rotation_scale_rad", "reach_m"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name} of arm {self.name!r} is {getattr(self, name)}, expected a number above 0")
        if not all(low < high for low, high in zip(self.workspace_low_m, self.workspace_high_m, strict=True)):
            raise UserError(
                f"the workspace of arm {self.name!r} is empty: from {self.workspace_low_m} to {self.workspace_high_m}"
            )

    @property
    def opening_m(self) -> float:
        """Distance between the pads of the open gripper."""
        return len(self.fingers) * self.finger_travel_m

    @cached_property
    def home_rad(self) -> tuple[float, ...]:
        return tuple(joint.home_rad for joint in self.joints)
