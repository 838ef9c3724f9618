"""Settings of fine-tuning; importing this loads no library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Interval


@dataclass(frozen=True, kw_only=True)
class FineTuning:
    """Which weights are trained."""

    mode: Literal["full", "lora", "head"] = "full"
    lora_rank: Annotated[int, Interval(ge=1, le=10_000)] = 16
    lora_alpha: Annotated[int, Interval(ge=1, le=100_000)] = 32
    """An adapter's output is multiplied by alpha / rank."""
    lora_targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    """Last parts of the names of the decoder's linear layers that get an adapter. A name that the decoder lacks is an
    error: Mixtral's and Grok-1's MLPs are experts, which get none."""
    freeze_router: bool = False
    """Freeze the routers of the action head's experts."""
    towers: bool = False
    """Train the vision towers and all other inputs of the decoder too."""
    freeze_image_encoder: bool = False
    """Freeze a pretrained image encoder, and train the projection of its features."""
