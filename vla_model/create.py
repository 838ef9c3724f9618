"""A policy that has learned nothing of robots yet, by the name of its model.

nano, llama3_8b, ...         a size of SIZES: random weights and the tokenizer of the small models
smol                         the first 8 layers of SmolLM2-135M, once `make smol` was run
PATH                         a local model folder or .gguf file of the families in pretrained.py
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from numpy.typing import ArrayLike

from envs.types import WorldSpec
from vla_model.config import SIZES, VLAConfig, sizes_of
from vla_model.model import VLA
from vla_model.pretrained import load_backbone
from vla_model.processor import Processor
from vla_model.smol import smol_folder

SMOL_LAYERS = 8
"""Of 30; the middle ones know most about the words of an instruction."""


def create_policy(
    name: str,
    world_spec: WorldSpec,
    statistics: Mapping[str, Mapping[str, ArrayLike]],
    num_layers: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> tuple[VLA, Processor]:
    """Model and processor; what is not pretrained is random, from torch's generator.

    Args:
        statistics: as `Processor.from_statistics` wants them.
        num_layers: of a pretrained decoder, the first so many; None for all, or 8 of smol.
        dtype: of a pretrained decoder's weights; bfloat16 halves them and is for decoders that stay frozen.

    Raises:
        ValueError: nothing has that name, or its weights are broken; the message says what exists and how to get more.
    """
    check_model(name)
    if name in SIZES:
        config = SIZES[name](world_spec)
        return VLA(config), Processor.from_statistics(world_spec, statistics, config.instruction_length)
    if name == "smol":
        backbone = load_backbone(smol_folder(), num_layers or SMOL_LAYERS, dtype)
    else:
        backbone = load_backbone(name, num_layers, dtype)
    config = VLAConfig(backbone=backbone.decoder.config, **sizes_of(world_spec))
    model = VLA(config, decoder=backbone.decoder)
    return model, Processor.from_statistics(
        world_spec, statistics, config.instruction_length, tokenizer=backbone.tokenizer
    )


def check_model(name: str) -> None:
    """
    Raises:
        ValueError: nothing has that name.
    """
    if name == "smol" and not smol_folder().exists():
        raise ValueError("the weights of smol are not here yet; fetch and convert them with: make smol")
    if name != "smol" and name not in SIZES and not Path(name).exists():
        raise ValueError(
            f"model {name!r} does not exist; models: {', '.join(SIZES)}, smol, or a local model folder or .gguf file"
        )
