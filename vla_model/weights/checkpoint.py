"""A policy on disk: a folder with config.json, model.safetensors, processor.json, tokenizer.json and a model card.

Written atomically: after a kill the old policy or the new one is there. All parts are checked before anything is built.
Nothing is ever unpickled.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from envs.errors import UserError
from vla_model.config import VLAConfig
from vla_model.files.deployment import check_n_action_steps
from vla_model.files.folders import fresh_folder, previous_folder, read_json, write_whole
from vla_model.files.weight_files import load_tensors, mismatches, save_tensors
from vla_model.inputs.processor import PROCESSOR_FILE, TOKENIZER_FILE, Processor
from vla_model.model import VLA
from vla_model.numerics.dtypes import DtypeName
from vla_model.sizes import sizes_of
from vla_model.weights.finetune import merged_state_dict
from vla_model.weights.model_card import CARD_FILE, model_card
from vla_model.weights.weight_formats import hold_weights, narrow_model

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
_PARTS = (CONFIG_FILE, WEIGHTS_FILE, PROCESSOR_FILE, TOKENIZER_FILE)


def save_policy(folder: str | Path, model: VLA, processor: Processor) -> None:
    """Write the folder, replacing an existing policy. Adapters are merged into the weights.

    Raises:
        UserError: the path exists and is no policy, or a weight is not finite.
    """
    folder = Path(folder)
    if folder.exists() and any(not (folder / part).is_file() for part in _PARTS):
        raise UserError(f"{folder} exists, is not a saved policy and is not overwritten; name another folder")
    weights = merged_state_dict(model)
    with fresh_folder(folder) as fresh:
        model.config.save_pretrained(fresh)
        save_tensors(fresh / WEIGHTS_FILE, weights)
        processor.save(fresh)
        num_parameters = sum(tensor.numel() for tensor in weights.values())
        write_whole(fresh / CARD_FILE, model_card(model.config, processor, num_parameters))
        if folder.exists():  # A folder cannot replace a non-empty one: move the old one to where load_policy finds it.
            shutil.rmtree(previous_folder(folder), ignore_errors=True)
            folder.rename(previous_folder(folder))
    shutil.rmtree(previous_folder(folder), ignore_errors=True)


def load_shape(folder: str | Path) -> tuple[Path, VLAConfig, Processor]:
    """Everything but the weights, and its folder: the previous one if a process died while replacing it.

    Raises:
        UserError: see load_policy.
    """
    folder = Path(folder)
    if not folder.exists() and previous_folder(folder).exists():
        folder = previous_folder(folder)
    _check_parts(folder)
    processor, config = Processor.load(folder), _config(folder)
    _check_fit(folder, processor, config)
    return folder, config, processor


def load_policy(folder: str | Path, *, value_head: bool = False, dtype: DtypeName = "auto") -> tuple[VLA, Processor]:
    """The model, in eval mode on the CPU, and its processor.

    Args:
        value_head: add a value head if the model has none, initialised with a fixed seed.
        dtype: number format of the weights, for inference only; "auto" keeps them as saved.

    Raises:
        UserError: a part is missing, truncated or inconsistent with the others, or the weights are not finite or not
            as written; the message names it.
    """
    folder, config, processor = load_shape(folder)
    add_value_head = value_head and not config.value_head
    config.value_head |= value_head
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            model = narrow_model(config) if dtype in ("bfloat16", "int8") else VLA(config)
        except TypeError as error:  # transformers does not check the types of all fields
            raise UserError(f"{CONFIG_FILE} in {folder} is not of a policy: {error}") from error
    weights = load_tensors(folder / WEIGHTS_FILE)
    if add_value_head:
        weights |= {name: tensor for name, tensor in model.state_dict().items() if name.startswith("value_head.")}
    if problems := mismatches(model.state_dict(), weights):
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise UserError(
            f"{WEIGHTS_FILE} does not fit {CONFIG_FILE} in {folder}: {'; '.join(problems[:5])}{more}; take both "
            "from one policy"
        )
    model.load_state_dict(weights, strict=True)
    if processor.deployment is not None:
        check_n_action_steps(processor.deployment.n_action_steps, config.chunk_size)
    hold_weights(model, dtype)
    return model.eval(), processor


def load_config(folder: str | Path) -> VLAConfig:
    """The shape of a saved policy, without its weights.

    Raises:
        UserError: its config.json is missing or not of a policy.
    """
    return _config(Path(folder))


def _check_parts(folder: Path) -> None:
    missing = [part for part in _PARTS if not (folder / part).is_file()]
    if missing:
        raise UserError(f"{folder} is not a saved policy: it lacks {', '.join(missing)}; take a whole copy of it")
    for part in (CONFIG_FILE, PROCESSOR_FILE, TOKENIZER_FILE):
        read_json(folder / part, remedy="take another copy of the policy")
    try:
        with safe_open(folder / WEIGHTS_FILE, framework="pt") as weights:
            weights.keys()
    except SafetensorError as error:
        raise UserError(f"{WEIGHTS_FILE} in {folder} is broken: {error}; take another copy") from error


def _config(folder: Path) -> VLAConfig:
    try:
        config = VLAConfig.from_pretrained(folder)
    except (TypeError, ValueError, KeyError) as error:
        raise UserError(f"{CONFIG_FILE} in {folder} is not of a policy: {error}") from error
    if config.backbone is None:
        raise UserError(f"{CONFIG_FILE} in {folder} is not of a policy: it has no backbone")
    return config


def _check_fit(folder: Path, processor: Processor, config: VLAConfig) -> None:
    """Check that the two are of one policy."""
    asked: dict[str, Any] = sizes_of(processor.world_spec) | {"instruction_length": processor.instruction_length}
    del asked["pointing"]  # used in training only, and derived from names, which versions may do differently
    wrong = [
        f"{name} is {getattr(config, name)} and {size}" for name, size in asked.items() if getattr(config, name) != size
    ]
    if wrong:
        raise UserError(
            f"{CONFIG_FILE} and {PROCESSOR_FILE} in {folder} are of two policies: {'; '.join(wrong)}; take both "
            "from one"
        )
