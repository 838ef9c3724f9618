"""Settings of behaviour cloning; importing this loads no torch. The symbols are those of sft.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Interval


@dataclass(frozen=True, kw_only=True)
class SFTConfig:
    """Weights of the loss."""

    localization_weight: Annotated[float, Interval(ge=0, le=1_000_000)] = 3.0
    """w_loc; disclosed in every report."""
    pointing_weight: Annotated[float, Interval(ge=0, le=1_000_000)] = 0.5
    """w_point; disclosed in every report."""
    foresight_weight: Annotated[float, Interval(ge=0, le=1_000_000)] = 3.0
    """w_see; of a model with foresight (model.foreseen_steps, foreseen_keyframes, foreseen_waypoints)."""
    hand_pointing_weight: Annotated[float, Interval(ge=0, le=1_000_000)] = 0.5
    """w_hand; of a model with foreseen keyframes or waypoints, where a camera is calibrated."""
    load_balancing_weight: Annotated[float, Interval(ge=0, le=1_000_000)] = 0.01
    """w_bal"""
    router_z_weight: Annotated[float, Interval(ge=0, le=1_000_000)] = 0.001
    """w_z"""
    hold_gripper: bool = False
    """After an episode's end, train the gripper to repeat its last command."""
