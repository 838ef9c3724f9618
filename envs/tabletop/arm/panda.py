"""PANDA: a Franka Emika Panda with its parallel gripper; panda.xml is its model.

Joint frames and the limits of position, torque, speed and acceleration are the manufacturer's (Franka Control Interface
documentation, "Robot and interface specifications", in joint and in Cartesian space); masses and inertias are those
identified by Gaz et al., "Dynamic Identification of the Franka Emika Panda Robot with Retrieval of Feasible Parameters
Using Penalty-Based Optimization", RA-L 2019, as in the common MuJoCo models of this arm. The shapes are our own:
capsules and boxes render ten times faster than meshes.
"""

from __future__ import annotations

from pathlib import Path

import mujoco

from envs.arm import ArmSpec, Joint

_HOME_RAD = (0.0, -0.18483, 0.0, -2.49674, 0.0, 2.31191, 0.7854)
"""Gripper straight down, tool centre point at about (0.45, 0, 0.25) m."""
_MAX_VELOCITY_RAD_S = (2.175,) * 4 + (2.61,) * 3


def _model() -> mujoco.MjSpec:
    return mujoco.MjSpec.from_file(str(Path(__file__).with_suffix(".xml")))


def _joints() -> tuple[Joint, ...]:
    model = _model()
    names = [f"joint{i}" for i in range(1, 8)]
    ranges = [model.joint(name).range.tolist() for name in names]
    return tuple(
        Joint(name=name, low_rad=low, high_rad=high, home_rad=home, max_velocity_rad_s=velocity)
        for name, (low, high), home, velocity in zip(names, ranges, _HOME_RAD, _MAX_VELOCITY_RAD_S, strict=True)
    )


PANDA = ArmSpec(
    name="panda",
    model=_model,
    base_body="link0",
    joints=_joints(),
    fingers=("finger1", "finger2"),
    finger_travel_m=0.04,
    finger_half_m=0.01,
    position_scale_m=0.04,
    rotation_scale_rad=0.2,
    workspace_low_m=(0.27, -0.34, 0.008),
    workspace_high_m=(0.74, 0.34, 0.45),
    reach_m=1.2,
    max_speed_m_s=1.7,
    max_acceleration_m_s2=13.0,
    max_turn_rad_s=2.5,
    max_turn_rad_s2=25.0,
)
"""The arm of the suite."""
