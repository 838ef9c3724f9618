"""ArmSpec: an arm as data. Another arm is one file that builds one of these (envs/tabletop/arm/panda.py is the first).

Nothing here imports a simulator, so a robot's limits are known without one.
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
    """Where it is when an episode begins, and where the controller draws it while the tool's pose allows."""
    max_velocity_rad_s: float
    """Beyond this a robot holds."""

    def __post_init__(self) -> None:
        if not self.low_rad < self.home_rad < self.high_rad:
            raise UserError(
                f"joint {self.name!r} has its home at {self.home_rad} rad, expected within {self.low_rad} .. "
                f"{self.high_rad}"
            )


@dataclass(frozen=True, kw_only=True)
class ArmSpec:
    """What a scene, a controller, a scripted expert and a safety filter need to know of an arm with a parallel gripper.

    Raises:
        UserError: no joint or finger, a joint whose home is out of its range, a size or a scale that is not above 0,
            or an empty workspace.
    """

    name: str
    add: Callable[[mujoco.MjSpec], None]
    """Adds the arm at the origin of a model that has no joints yet, facing +x: `base_body`, the joints and then the
    fingers in the order in which they are named here, position actuators named alike in the same order, the site
    TOOL_SITE and the camera WRIST_CAMERA.

    The site is between the fingertips. Its z points out of the hand, down at home; its x away from the arm at home; the
    fingers open along its y. Links have contype 2, to touch things (contype 1) and not each other."""
    base_body: str
    """Child of the world; a world may lift or lower it."""
    joints: tuple[Joint, ...]
    """From the base to the hand."""
    fingers: tuple[str, ...]
    """Slide joints of the gripper: closed at 0, open at finger_travel_m."""
    finger_travel_m: float
    """Of each finger; the opening between the pads is the sum."""
    finger_half_m: float
    """Half the depth of the fingers, along the tool's x."""
    position_scale_m: float
    """Displacement of the tool that an action of 1 asks for."""
    rotation_scale_rad: float
    """Rotation of the tool that an action of 1 asks for."""
    workspace_low_m: tuple[float, float, float]
    """Corner of the box that the tool does not leave, in the table's frame."""
    workspace_high_m: tuple[float, float, float]
    reach_m: float
    """No coordinate of the tool in the base's frame is farther from 0."""
    max_speed_m_s: float
    """Of the tool, as the three that follow: limits of the real arm."""
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
        """Between the pads of the open gripper."""
        return len(self.fingers) * self.finger_travel_m

    @cached_property
    def home_rad(self) -> tuple[float, ...]:
        return tuple(joint.home_rad for joint in self.joints)
