"""Models by name: ModelConfig, the settings of a model, and SIZES, functions from a WorldSpec to a VLAConfig.

A new size is a new function. Settings are options of commands, so importing this loads neither torch nor transformers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from annotated_types import Interval

from envs.errors import UserError
from envs.types import WorldSpec
from vla_model.backbones.presets import PRESETS
from vla_model.heads.names import check_distribution

if TYPE_CHECKING:
    from vla_model.config import VLAConfig

FROM_SCRATCH = ("conv", "vit")
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

    def check(self) -> None:
        """
        Raises:
            UserError: no model, vision tower or action distribution has that name, or the decoder's width cannot be
                chosen.
        """
        name, vision = self.name, self.vision
        if name != "smol" and name not in SIZES and not Path(name).exists():
            raise UserError(
                f"model {name!r} does not exist; models: {', '.join(SIZES)}, smol, or a local model folder or .gguf "
                "file"
            )
        if self.hidden_size is not None and name not in SIZES:
            raise UserError(f"the decoder {name} has its weights, so its width cannot be chosen: leave out hidden_size")
        if vision is not None and vision not in FROM_SCRATCH and not Path(vision).is_dir():
            raise UserError(
                f"vision {vision!r} does not exist; vision: {', '.join(FROM_SCRATCH)}, or the local folder of a "
                "transformers vision model"
            )
        if self.action_distribution is not None:
            check_distribution(self.action_distribution)


def nano(world_spec: WorldSpec) -> VLAConfig:
    """A model small enough to train from scratch on two CPU cores: about 1.8 M parameters."""
    from transformers import LlamaConfig

    from vla_model.config import VLAConfig

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

    def size(world_spec: WorldSpec) -> VLAConfig:
        from vla_model.config import VLAConfig

        return VLAConfig(backbone=PRESETS[name](), **sizes_of(world_spec))

    return size


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
