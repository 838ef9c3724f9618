"""A policy before any robot training, from the name of its model and changes to its config.

nano, llama3_8b, ...         a size of SIZES: random weights and the tokenizer of the small models
smol                         the first 8 layers of SmolLM2-135M, after `make smol`
PATH                         a local model folder or .gguf file of the families in pretrained.py
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from annotated_types import Interval
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
from vla_model.sizes import SIZES, sizes_of
from vla_model.vision.image_encoder import encoder_shape, load_image_encoder
from vla_model.vision.tower import TOWERS, PretrainedTower

SMOL_LAYERS = 8
"""Of 30; the middle layers encode an instruction's words best."""
_FROM_SCRATCH = tuple(name for name, tower in TOWERS.items() if tower is not PretrainedTower)
"""Vision towers that have no pretrained weights."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A model, and fields of its VLAConfig to change (see vla_model/config.py); None keeps the model's value."""

    name: Annotated[str, tyro.conf.arg(name="")] = "nano"
    """A size (nano), smol, or the path of pretrained weights."""
    num_layers: Annotated[int, Interval(ge=1, le=1_000)] | None = None
    """Of the decoder; of a pretrained one the first layers; None means 8 of smol."""
    hidden_size: Annotated[int, Interval(ge=1, le=100_000)] | None = None
    """Width of a decoder from scratch; its MLPs scale with it, the number of heads stays."""
    vision: str | None = None
    """conv, vit, or the folder of a transformers vision model (SigLIP, DINOv2, CLIP)."""
    vision_channels: Annotated[int, Interval(ge=1, le=10_000)] | None = None
    vision_blocks: Annotated[int, Interval(ge=0, le=1_000)] | None = None
    vision_layers: Annotated[int, Interval(ge=1, le=1_000)] | None = None
    """Of vit."""
    vision_patch_px: Annotated[int, Interval(ge=1, le=1_000)] | None = None
    """Of vit."""
    num_keypoints: Annotated[int, Interval(ge=1, le=10_000)] | None = None
    image_token_grid: Annotated[int, Interval(ge=1, le=100)] | None = None
    """Image tokens of a camera are means over the cells of a square grid of this side, or"""
    image_queries: Annotated[int, Interval(ge=0, le=10_000)] | None = None
    """come from this many learned queries by attention."""
    history_length: Annotated[int, Interval(ge=0, le=1_000)] | None = None
    """Past observations in the input,"""
    history_stride: Annotated[int, Interval(ge=1, le=100_000)] | None = None
    """this many control steps apart."""
    foreseen_steps: Annotated[
        tuple[Annotated[int, Interval(ge=1, le=100_000)], ...] | None, tyro.conf.arg(metavar="INT ...")
    ] = None
    """Control steps ahead of which the model also predicts the state, while training."""
    foreseen_keyframes: bool | None = None
    """Whether it also predicts the state at the next keyframe and at the episode's end,"""
    foreseen_waypoints: bool | None = None
    """and at the next waypoint."""
    instruction_length: Annotated[int, Interval(ge=1, le=10_000)] | None = None
    """Tokens of the longest instruction; longer ones are truncated, and training warns of it."""
    chunk_size: Annotated[int, Interval(ge=1, le=1_000)] | None = None
    moe_layers: Annotated[int, Interval(ge=1, le=1_000)] | None = None
    num_experts: Annotated[int, Interval(ge=1, le=1_000)] | None = None
    top_k_experts: Annotated[int, Interval(ge=1, le=1_000)] | None = None
    expert_size: Annotated[int, Interval(ge=1, le=100_000)] | None = None
    shared_expert: bool | None = None
    decoupled_weights: bool | None = None
    balancing_rate: Annotated[float, Interval(ge=0, le=1)] | None = None
    action_distribution: str | None = None
    """laplace, tokens or flow."""


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
    name, vision = model.name, model.vision
    if name != "smol" and name not in SIZES and not Path(name).exists():
        raise UserError(
            f"model {name!r} does not exist; models: {', '.join(SIZES)}, smol, or a local model folder or .gguf file"
        )
    if model.hidden_size is not None and name not in SIZES:
        raise UserError(f"the decoder {name} has its weights, so its width cannot be chosen: leave out hidden_size")
    if vision is not None and vision not in _FROM_SCRATCH:
        if not Path(vision).is_dir():
            raise UserError(
                f"vision {vision!r} does not exist; vision: {', '.join(_FROM_SCRATCH)}, or the local folder of a "
                "transformers vision model"
            )
        encoder_shape(vision)


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
    if model.vision in _FROM_SCRATCH:
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
