"""ModelInputs: the inputs of a VLA as tensors.

Shape letters: B batch, I instruction tokens, S state dims, H x W pixels, n past observations.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vla_model.config import VLAConfig
from vla_model.heads.action_head import DISTRIBUTIONS
from vla_model.numerics.tensors import TensorBatch


@dataclass(frozen=True, kw_only=True)
class ModelInputs(TensorBatch):
    """A batch. Made by `Processor.encode`, or by `fake_inputs` for tests and timings."""

    frames: dict[str, Tensor]
    """{camera: uint8 [B, H, W, 3]}, RGB."""
    state: Tensor
    """float32 [B, S], normalised."""
    instruction_ids: Tensor
    """int64 [B, I]"""
    instruction_mask: Tensor
    """bool [B, I], False where padded; a row has at least one real token, and they come first."""
    past_frames: dict[str, Tensor] | None = None
    """History: {camera: uint8 [B, n, H, W, 3]}, oldest first (inputs/history.py); None for a model without history or
    where past observations are kept as tokens."""
    past_state: Tensor | None = None
    """float32 [B, n, S], normalised."""
    shift_px: dict[str, Tensor] | None = None
    """Augmentation: {camera: int64 [B, 2]}, columns and rows by which each frame is shifted."""
    light: Tensor | None = None
    """Augmentation: float32 [B, 3], factors of red, green and blue in all cameras' frames."""
    action_noise: Tensor | None = None
    """For action distributions whose loss takes random numbers: float32 [B, K, A + 1], for each action a standard
    normal number per dimension, and a uniform one in [0, 1)."""


def sample_shifts(config: VLAConfig, batch_size: int, generator: torch.Generator) -> dict[str, Tensor] | None:
    """Random `ModelInputs.shift_px` of up to config.random_shift_px pixels in each direction; None where that is 0."""
    most = config.random_shift_px
    if not most:
        return None
    assert config.cameras
    return {name: torch.randint(-most, most + 1, (batch_size, 2), generator=generator) for name, _, _ in config.cameras}


def sample_light(config: VLAConfig, batch_size: int, generator: torch.Generator) -> Tensor | None:
    """Random `ModelInputs.light`, brightness times colour jitter; None where the config has none."""
    if config.random_light is None:
        return None
    darkest, brightest = map(math.log, config.random_light)
    brightness = darkest + (brightest - darkest) * torch.rand(batch_size, 1, generator=generator)
    return (brightness + _TINT_STD * torch.randn(batch_size, 3, generator=generator)).exp()


_TINT_STD = 0.08
"""Of the logarithm of a colour's factor."""


def sample_action_noise(config: VLAConfig, batch_size: int, generator: torch.Generator) -> Tensor | None:
    """Random `ModelInputs.action_noise`; None where the action distribution's loss takes none."""
    if not DISTRIBUTIONS[config.action_distribution].takes_noise:
        return None
    shape = (batch_size, config.chunk_size)
    normal = torch.randn(*shape, config.action_size, generator=generator)
    return torch.cat([normal, torch.rand(*shape, 1, generator=generator)], dim=-1)


def fake_inputs(config: VLAConfig, batch_size: int, seed: int = 0) -> ModelInputs:
    """Random inputs of the right shapes, the same for the same seed; instructions of different lengths."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, config.instruction_length + 1, (batch_size, 1), generator=generator)

    def frames(*leading: int) -> dict[str, Tensor]:
        return {
            name: torch.randint(0, 256, (*leading, height, width, 3), generator=generator, dtype=torch.uint8)
            for name, height, width in config.cameras or ()
        }

    inputs = ModelInputs(
        frames=frames(batch_size),
        state=torch.randn(batch_size, config.state_size, generator=generator),
        instruction_ids=torch.randint(
            0, config.vocab_size, (batch_size, config.instruction_length), generator=generator
        ),
        instruction_mask=torch.arange(config.instruction_length) < lengths,
    )
    if not config.history_length:
        return inputs
    past = batch_size, config.history_length
    past_state = torch.randn(*past, config.state_size, generator=generator)
    return dataclasses.replace(inputs, past_frames=frames(*past), past_state=past_state)
