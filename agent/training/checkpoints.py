"""Checkpoints of a run: the policy and what resuming needs, in one folder written atomically."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from agent.learning.learner import Learner
from agent.runs.run_folder import PRETRAINED
from vla_model.files.folders import fresh_folder, write_json
from vla_model.files.weight_files import load_tensors, save_tensors
from vla_model.inputs.processor import Processor
from vla_model.model import VLA
from vla_model.weights.adapters import save_adapter
from vla_model.weights.checkpoint import save_policy
from vla_model.weights.finetune import FineTuning, merged_state_dict

_ACTED_FILE = "acted.safetensors"


def save_checkpoint(
    folder: Path,
    learner: Learner[VLA],
    processor: Processor,
    fine_tuning: FineTuning,
    notes: Mapping[str, object] | None = None,
    acted: Mapping[str, Tensor] | None = None,
) -> None:
    """Write the folder, unless it exists already or another process writes it meanwhile.

    Args:
        learner: whose moving average is the policy.
        fine_tuning: which weights are trained; if not all, these are also written alone, to `adapter`.
        notes: contents of JSON files to add, by name.
        acted: weights that the next episodes are collected with, where these are not the policy's.

    Raises:
        FloatingPointError: the learner's state is not finite; nothing was written.
    """
    if folder.exists():
        return
    learner.check_finite()
    try:
        with fresh_folder(folder) as fresh:
            save_policy(fresh / PRETRAINED, learner.average, processor)
            if fine_tuning.mode != "full":
                save_adapter(fresh / "adapter", learner.average, fine_tuning)
            learner.save(fresh)
            for name, content in (notes or {}).items():
                write_json(fresh / name, content)
            if acted is not None:
                save_tensors(fresh / _ACTED_FILE, acted)
    except FileExistsError:
        if not folder.is_dir():
            raise


def acted_weights(folder: Path) -> dict[str, Tensor] | None:
    """The `acted` weights of a checkpoint, None if it has none."""
    path = folder / _ACTED_FILE
    return load_tensors(path) if path.exists() else None


def acting_weights(learner: Learner[VLA]) -> dict[str, Tensor]:
    """The policy's weights on the CPU, adapters merged.

    Raises:
        FloatingPointError: the learner's state is not finite.
    """
    learner.check_finite()
    return {name: tensor.cpu() for name, tensor in merged_state_dict(learner.average).items()}
