"""An arm of the tabletop suite as a robot: its axes and their limits.

Heights of the workspace are above the table, those of the state above the arm's base, which may be above or below the
table.
"""

from __future__ import annotations

from agent.robot.types import Axis, Limits, Watch
from envs.arm import ArmSpec
from envs.tabletop.episodes.variations import HELD_OUT_EXECUTION


def axes_of(arm: ArmSpec) -> tuple[Axis, ...]:
    """The axes of the actions of envs.tabletop.arm.control.action_spec."""
    margins = (0.0, 0.0, HELD_OUT_EXECUTION.base_height_m[1])
    workspace = zip("xyz", arm.workspace_low_m, arm.workspace_high_m, margins, strict=True)
    moves = (
        Axis(
            state=f"tcp_{name}",
            relative=True,
            scale=arm.position_scale_m,
            limits=Limits(
                low=low - margin,
                high=high + margin,
                max_velocity=arm.max_speed_m_s,
                max_acceleration=arm.max_acceleration_m_s2,
            ),
        )
        for name, low, high, margin in workspace
    )
    turn = Axis(
        relative=True,
        scale=arm.rotation_scale_rad,
        limits=Limits(max_velocity=arm.max_turn_rad_s, max_acceleration=arm.max_turn_rad_s2),
    )
    gripper = Axis(
        state="gripper_opening",
        relative=False,
        scale=-arm.opening_m / 2,
        offset=arm.opening_m / 2,
        limits=Limits(low=0.0, high=arm.opening_m),
    )
    return (*moves, turn, turn, turn, gripper)


def watched_of(arm: ArmSpec) -> tuple[Watch, ...]:
    """The joints, which must stay within their ranges and velocities."""
    return tuple(
        Watch(state=f"{joint.name}_pos", low=joint.low_rad, high=joint.high_rad, max_velocity=joint.max_velocity_rad_s)
        for joint in arm.joints
    )
