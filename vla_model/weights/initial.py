"""Training that begins with the weights of a saved policy in place of random ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from envs.errors import UserError
from vla_model.config import VLAConfig
from vla_model.model import VLA
from vla_model.weights.checkpoint import load_config, load_policy

_MAY_DIFFER = ("instruction_length", "action_limits", "value_head")
"""Fields without weights; action limits are the saved policy's, and a value head is left out."""


def check_initial_weights(folder: Path, shape: VLAConfig) -> None:
    """Check that `load_initial_weights` can fill a model of that shape.

    Raises:
        UserError: the policy's model differs in more than instruction_length; the message lists every field.
    """
    may_differ = {*_MAY_DIFFER}
    if not (shape.foreseen_keyframes or shape.foreseen_waypoints):
        may_differ.add("calibrated_cameras")  # without these no head points into them
    saved, asked = (dict(_fields(config.to_dict())) for config in (load_config(folder), shape))
    lines = [
        f"{name}: {saved.get(name, 'none')} there, {asked.get(name, 'none')} in this recipe"
        for name in sorted(saved.keys() | asked.keys())
        if name not in may_differ and saved.get(name) != asked.get(name)
    ]
    if lines:
        raise UserError(
            f"the model of the policy in {folder} is not the one that this recipe trains:\n  "
            + "\n  ".join(lines)
            + "\ntake the recipe that the policy was trained with, or set these fields with --model and --model.FIELD"
        )


def load_initial_weights(model: VLA, folder: Path) -> None:
    """Copy a saved policy's weights into a model, whose `instruction_length` may be another; a value head is left out.

    Raises:
        UserError: the policy is damaged, or see check_initial_weights.
    """
    check_initial_weights(folder, model.config)
    saved, _ = load_policy(folder)
    weights = {name: tensor for name, tensor in saved.state_dict().items() if not name.startswith("value_head.")}
    model.load_state_dict(weights)


def _fields(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Those of a config and of the configs in it, as backbone.hidden_size."""
    for name, value in config.items():
        if isinstance(value, dict):
            yield from _fields(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
