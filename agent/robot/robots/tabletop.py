"""The tabletop suite's arm as a robot: what its actions command, and within which limits.

Cartesian limits and joint velocities are the Franka Panda's (Franka Control Interface documentation, "Robot and
interface specifications", limits in the Cartesian and in the joint space); the box is the suite's workspace. Its height
counts from the arm's base, which may stand that much above or below the table.
"""

from __future__ import annotations

from agent.robot.types import Axis, Limits, Watch
from envs.tabletop.arm.control import POSITION_SCALE_M, ROTATION_SCALE_RAD, WORKSPACE_HIGH_M, WORKSPACE_LOW_M
from envs.tabletop.arm.panda import FINGER_OPEN_M, LINKS

_BASE_HEIGHT_M = 0.025
_MAX_SPEED_M_S, _MAX_ACCELERATION_M_S2 = 1.7, 13.0
_MAX_TURN_RAD_S, _MAX_TURN_RAD_S2 = 2.5, 25.0
_MAX_JOINT_VELOCITY_RAD_S = (2.175,) * 4 + (2.61,) * 3

TABLETOP_AXES = (
    *(
        Axis(
            state=f"tcp_{name}",
            relative=True,
            scale=POSITION_SCALE_M,
            limits=Limits(
                low=low - margin,
                high=high + margin,
                max_velocity=_MAX_SPEED_M_S,
                max_acceleration=_MAX_ACCELERATION_M_S2,
            ),
        )
        for name, low, high, margin in zip(
            "xyz", WORKSPACE_LOW_M, WORKSPACE_HIGH_M, (0.0, 0.0, _BASE_HEIGHT_M), strict=True
        )
    ),
    *(
        Axis(
            relative=True,
            scale=ROTATION_SCALE_RAD,
            limits=Limits(max_velocity=_MAX_TURN_RAD_S, max_acceleration=_MAX_TURN_RAD_S2),
        )
        for _ in "xyz"
    ),
    Axis(
        state="gripper_opening",
        relative=False,
        scale=-FINGER_OPEN_M,
        offset=FINGER_OPEN_M,
        limits=Limits(low=0.0, high=2 * FINGER_OPEN_M),
    ),
)
"""Of envs.tabletop.control.ACTION."""

TABLETOP_WATCHED = tuple(
    Watch(state=f"joint{i}_pos", low=link.joint_range_rad[0], high=link.joint_range_rad[1], max_velocity=velocity)
    for i, (link, velocity) in enumerate(zip(LINKS, _MAX_JOINT_VELOCITY_RAD_S, strict=True), start=1)
)
