"""MuJoCo's warnings of numbers that are not finite or too large, by which it has reset a simulation."""

from __future__ import annotations

import mujoco

BAD_STATE = (
    mujoco.mjtWarning.mjWARN_BADQPOS.value,
    mujoco.mjtWarning.mjWARN_BADQVEL.value,
    mujoco.mjtWarning.mjWARN_BADQACC.value,
)
"""Types of warnings: bad qpos, qvel, qacc."""


def has_bad_numbers(data: mujoco.MjData) -> bool:
    """Whether the state was bad since the data were reset."""
    return any(data.warning[kind].number for kind in BAD_STATE)
