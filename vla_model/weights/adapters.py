"""A fine-tuning on disk, without the frozen weights.

    fine_tuning.json            the FineTuning, whether there is a value head, and a hash of the frozen weights
    heads.safetensors           the fully trained weights
    adapter_config.json         low-rank adapters of the decoder in peft's format; only in mode lora
    adapter_model.safetensors

It belongs to a base, the policy that was fine-tuned. `load_adapted` combines the two; `save_policy` of the result
writes the merged policy. Nothing is ever unpickled.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import torch
from torch import Tensor

from envs.errors import UserError
from vla_model.files.folders import fresh_folder, write_json
from vla_model.files.weight_files import load_tensors, mismatches, save_tensors
from vla_model.inputs.processor import Processor
from vla_model.model import VLA
from vla_model.weights.checkpoint import load_policy
from vla_model.weights.finetune import (
    FineTuning,
    adaptable,
    frozen_state_dict,
    lora_config,
    prepare,
    trained_state_dict,
)

FINE_TUNING_FILE = "fine_tuning.json"
HEADS_FILE = "heads.safetensors"
LORA_FILE = "adapter_model.safetensors"
_PEFT_PREFIX = "base_model.model."
"""Prefix of every name in peft's files."""


def save_adapter(folder: str | Path, model: VLA, fine_tuning: FineTuning) -> None:
    """Write the folder atomically.

    Args:
        model: after `prepare` with this fine_tuning, or a copy of such a model.

    Raises:
        UserError: the mode is full, which freezes nothing, or the folder exists.
    """
    folder = Path(folder)
    if fine_tuning.mode == "full":
        raise UserError("full fine-tuning freezes no weights: save the policy with save_policy")
    if folder.exists():
        raise UserError(f"{folder} exists and is not overwritten; name another folder")
    content = {
        "fine_tuning": dataclasses.asdict(fine_tuning),
        "value_head": model.config.value_head,
        "base": weights_hash(frozen_state_dict(model, fine_tuning)),
    }
    with fresh_folder(folder) as fresh:
        write_json(fresh / FINE_TUNING_FILE, content)
        save_tensors(fresh / HEADS_FILE, trained_state_dict(model, fine_tuning))
        if fine_tuning.mode == "lora":
            import peft

            weights = peft.get_peft_model_state_dict(model.backbone.decoder)
            save_tensors(fresh / LORA_FILE, {_PEFT_PREFIX + name: w for name, w in weights.items()})
            lora_config(fine_tuning).save_pretrained(fresh)


def load_adapted(base: str | Path, folder: str | Path) -> tuple[VLA, Processor]:
    """The fine-tuned policy, in eval mode and prepared for further fine-tuning, and its processor.

    Args:
        base: folder of the policy that was fine-tuned.
        folder: written by `save_adapter`.

    Raises:
        UserError: a part is missing or damaged, or the base is another one.
    """
    folder = Path(folder)
    fine_tuning, value_head, base_hash = _read(folder)
    model, processor = load_policy(base, value_head=value_head)
    with torch.random.fork_rng(devices=[]):
        prepare(model, adaptable(model, fine_tuning))  # older folders name targets that the decoder lacks
    found = weights_hash(frozen_state_dict(model, fine_tuning))
    if found != base_hash:
        raise UserError(
            f"{folder} was trained on another base than {base}: "
            f"the frozen weights have the hash {base_hash[:12]}, here they have {found[:12]}; name the policy that "
            "was fine-tuned"
        )
    weights = _load(folder / HEADS_FILE, trained_state_dict(model, fine_tuning))
    model.load_state_dict(weights, strict=False)
    if fine_tuning.mode == "lora":
        import peft

        decoder = model.backbone.decoder
        expected = {_PEFT_PREFIX + name: w for name, w in peft.get_peft_model_state_dict(decoder).items()}
        weights = _load(folder / LORA_FILE, expected)
        peft.set_peft_model_state_dict(decoder, {name.removeprefix(_PEFT_PREFIX): w for name, w in weights.items()})
    return model.eval(), processor


def weights_hash(weights: dict[str, Tensor]) -> str:
    """SHA-256 of names, dtypes, shapes and bytes, independent of their order."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _read(folder: Path) -> tuple[FineTuning, bool, str]:
    """The content of fine_tuning.json: fine-tuning, value head, hash of the base."""
    path = folder / FINE_TUNING_FILE
    if not path.is_file():
        raise UserError(f"{folder} is not a saved adapter: it lacks {FINE_TUNING_FILE}; take a whole copy of it")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        fields = content["fine_tuning"]
        fine_tuning = FineTuning(**(fields | {"lora_targets": tuple(fields["lora_targets"])}))
        return fine_tuning, bool(content["value_head"]), str(content["base"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{FINE_TUNING_FILE} in {folder} is broken: {error}; take another copy") from error


def _load(path: Path, expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of exactly the expected names and shapes."""
    weights = load_tensors(path)
    if problems := mismatches(expected, weights):
        raise UserError(f"{path.name} in {path.parent} does not fit its base: {'; '.join(problems[:5])}")
    return weights
