"""Named model sizes: functions from a WorldSpec to a VLAConfig. A new size is a new function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import LlamaConfig

from envs.types import WorldSpec
from vla_model.backbones.presets import PRESETS
from vla_model.config import VLAConfig


def nano(world_spec: WorldSpec) -> VLAConfig:
    """A model small enough to train from scratch on two CPU cores: about 1.8 M parameters."""
    backbone = LlamaConfig(
        vocab_size=2048,
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=512,
    )
    return VLAConfig(
        backbone=backbone, vision_channels=64, num_keypoints=32, image_token_grid=2, **sizes_of(world_spec)
    )


def nano_steady(world_spec: WorldSpec) -> VLAConfig:
    """nano for worlds of constant lighting: augmented by shifts only, without brightness or colour jitter."""
    config = nano(world_spec)
    config.random_light = None
    return config


def published(name: str) -> Callable[[WorldSpec], VLAConfig]:
    """The size with a decoder of presets.py."""
    return lambda world_spec: VLAConfig(backbone=PRESETS[name](), **sizes_of(world_spec))


def sizes_of(world_spec: WorldSpec) -> dict[str, Any]:
    """The fields of a VLAConfig that the world determines."""
    return {
        "cameras": [[camera.name, camera.height, camera.width] for camera in world_spec.cameras],
        "state_size": world_spec.state.size,
        "action_size": world_spec.action.size,
        "localization_size": world_spec.localization.size,
        "pointing": pointing_columns(world_spec),
        "calibrated_cameras": [camera.name for camera in world_spec.calibrated_cameras],
    }


def pointing_columns(world_spec: WorldSpec) -> dict[str, list[list[int]]]:
    """{camera: [[u, v], ...]}: the columns of a world's labels that are positions in that camera's frame."""
    places = world_spec.localization.places
    return {camera.name: [[u, v] for of, u, v in places if of == camera.name] for camera in world_spec.cameras}


SIZES: dict[str, Callable[[WorldSpec], VLAConfig]] = {
    "nano": nano,
    "nano_steady": nano_steady,
} | {name: published(name) for name in PRESETS}
"""Named sizes."""
