"""A policy before any robot training, from the name of its model and changes to its config.

- `nano, llama3_8b, ...`: a size of SIZES: random weights and the tokenizer of the small models
- `smol`: the first 8 layers of SmolLM2-135M, after `make smol`
- `PATH`: a local model folder or .gguf file of the families in pretrained.py
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch
from numpy.typing import ArrayLike
from tokenizers import Tokenizer
from transformers import PretrainedConfig, PreTrainedModel

from envs.errors import UserError
from envs.types import WorldSpec
from vla_model.backbones.pretrained import backbone_config, first_layers, load_backbone
from vla_model.backbones.smol import smol_config, smol_folder
from vla_model.config import VLAConfig
from vla_model.inputs.processor import Processor
from vla_model.model import VLA
from vla_model.sizes import FROM_SCRATCH, SIZES, ModelConfig, sizes_of
from vla_model.vision.image_encoder import encoder_shape, load_image_encoder

SMOL_LAYERS = 8
"""Of 30; the middle layers encode an instruction's words best."""


def create_policy(
    model: ModelConfig,
    world_spec: WorldSpec,
    statistics: Mapping[str, Mapping[str, ArrayLike]],
    dtype: torch.dtype = torch.float32,
    continues: VLAConfig | None = None,
) -> tuple[VLA, Processor]:
    """Model and processor; weights that are not pretrained are random, from torch's global generator.

    Args:
        model: the model.
        world_spec: of the world to act in.
        statistics: as `Processor.from_statistics` takes them.
        dtype: of a pretrained decoder's weights; bfloat16 halves their memory and is for frozen decoders.
        continues: config of a saved policy whose training continues; its action limits are kept.

    Raises:
        UserError: no model has that name, its weights are damaged, or its fields are inconsistent; the message says
            what exists and how to get more.
    """
    check_model(model)
    config, decoder, tokenizer = _decoder(model, world_spec, dtype)
    _change_fields(config, model, world_spec)
    processor = Processor.from_statistics(world_spec, statistics, config.instruction_length, tokenizer=tokenizer)
    config.action_limits = processor.action_limits() if continues is None else continues.action_limits
    image_encoder = (
        load_image_encoder(model.vision) if model.vision is not None and config.image_encoder is not None else None
    )
    return VLA(config, decoder=decoder, image_encoder=image_encoder), processor


def shape_of(model: ModelConfig, world_spec: WorldSpec) -> VLAConfig:
    """The config of the model that `create_policy` makes, without reading weights; smol's need not exist.

    Raises:
        UserError: no model has that name, or its fields are inconsistent.
    """
    _check_names(model)
    if model.name in SIZES:
        config, _, _ = _decoder(model, world_spec, torch.float32)
    else:
        whole = smol_config() if model.name == "smol" else backbone_config(model.name)
        config = VLAConfig(backbone=first_layers(whole, _num_layers(model)), pretrained=True, **sizes_of(world_spec))
    _change_fields(config, model, world_spec)
    return config


def check_model(model: ModelConfig) -> None:
    """
    Raises:
        UserError: no model has that name, its vision does not exist, or its weights are missing.
    """
    _check_names(model)
    if model.name == "smol" and not smol_folder().exists():
        raise UserError("the weights of smol are not here yet; fetch and convert them with: make smol")


def _check_names(model: ModelConfig) -> None:
    model.check()
    if model.vision is not None and model.vision not in FROM_SCRATCH:
        encoder_shape(model.vision)


def _num_layers(model: ModelConfig) -> int | None:
    """Of a pretrained decoder; None for all."""
    return SMOL_LAYERS if model.name == "smol" and model.num_layers is None else model.num_layers


def _decoder(
    model: ModelConfig, world_spec: WorldSpec, dtype: torch.dtype
) -> tuple[VLAConfig, PreTrainedModel | None, Tokenizer | None]:
    """The model's config, before its fields are changed; the pretrained decoder and its tokenizer, if any."""
    if model.name in SIZES:
        config = SIZES[model.name](world_spec)
        assert isinstance(config.backbone, PretrainedConfig)
        config.backbone = _resized(config.backbone, model.num_layers, model.hidden_size)
        return config, None, None
    backbone = load_backbone(smol_folder() if model.name == "smol" else model.name, _num_layers(model), dtype)
    config = VLAConfig(backbone=backbone.decoder.config, pretrained=True, **sizes_of(world_spec))
    return config, backbone.decoder, backbone.tokenizer


def _change_fields(config: VLAConfig, model: ModelConfig, world_spec: WorldSpec) -> None:
    """Set the fields that ModelConfig shares with VLAConfig, and those of the vision tower.

    Raises:
        UserError: keyframes or waypoints are to be predicted in a world that has none.
    """
    changes = {field.name: getattr(model, field.name) for field in fields(model)}
    for name in changes.keys() - {"name", "num_layers", "hidden_size", "vision"}:
        if changes[name] is not None:
            setattr(config, name, list(changes[name]) if isinstance(changes[name], tuple) else changes[name])
    if model.vision in FROM_SCRATCH:
        config.vision = model.vision
    elif model.vision is not None:
        shape = encoder_shape(model.vision)
        config.vision, config.image_encoder, config.image_size_px = "pretrained", shape.config, shape.size_px
        config.image_mean, config.image_std = shape.mean, shape.std
    if config.foreseen_keyframes and not world_spec.action.grippers:
        raise UserError(
            "foreseen_keyframes: a keyframe is where a gripper's command changes, and this world's spec names "
            f"no action as one (VectorSpec.grippers); actions: {', '.join(world_spec.action.names)}"
        )
    if config.foreseen_waypoints and not world_spec.state.position:
        raise UserError(
            "foreseen_waypoints: a waypoint is where the hand's path turns, and this world's spec does "
            f"not say where it is (VectorSpec.position); its state: {', '.join(world_spec.state.names)}"
        )


def _resized(backbone: PretrainedConfig, num_layers: int | None, hidden_size: int | None) -> PretrainedConfig:
    """A decoder's config with another depth and width, keeping the ratio of MLP size to width."""
    changes: dict[str, Any] = {}
    if num_layers is not None:
        changes["num_hidden_layers"] = num_layers
    if hidden_size is not None:
        width, heads = backbone.hidden_size, backbone.num_attention_heads
        if hidden_size % (2 * heads):
            raise UserError(f"hidden_size must be a multiple of {2 * heads}, two for each head, got {hidden_size}")
        changes["hidden_size"] = hidden_size
        changes["intermediate_size"] = round(backbone.intermediate_size * hidden_size / width / 8) * 8
        if getattr(backbone, "head_dim", None) == width // heads:
            changes["head_dim"] = hidden_size // heads
    return type(backbone)(**(backbone.to_dict() | changes)) if changes else backbone
