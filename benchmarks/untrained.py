"""Untrained policies, whose inference costs as much as that of trained ones."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from envs.types import WorldSpec
from vla_model.create import create_policy
from vla_model.inputs.processor import Processor
from vla_model.model import VLA
from vla_model.sizes import ModelConfig


def untrained(world_spec: WorldSpec, model: str = "nano", dtype: torch.dtype = torch.float32) -> tuple[VLA, Processor]:
    """A policy of that size, always with the same random weights, and with identity normalisation."""
    torch.manual_seed(0)
    return create_policy(ModelConfig(name=model), world_spec, unit_statistics(world_spec), dtype)


def unit_statistics(world_spec: WorldSpec) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Statistics whose normalisation is the identity."""
    vectors = {
        "observation.state": world_spec.state,
        "action": world_spec.action,
        "label.localization": world_spec.localization,
    }
    return {name: {"mean": np.zeros(v.size), "std": np.ones(v.size)} for name, v in vectors.items()}
