"""Frames -> image tokens: one small convolutional tower per camera, told what to look for by the instruction.

    uint8 frame -> patch convolution of stride 4 -> stride-2 stages until the map is at most G cells wide
                -> residual blocks modulated by the instruction (FiLM, Perez et al. 2018) -> features
    features -> g x g pooled image tokens
    features -> M heatmaps -> the expected x, y of each (spatial softmax, Levine et al. 2016) -> one keypoint token

A small policy fails by not seeing where things are, so the keypoints keep sub-cell positions that pooled tokens lose.
Normalisation is over channels (a LayerNorm on channels-last memory): GroupNorm and BatchNorm were not chosen because
the first is slow in bf16 on CPUs and the second sees other numbers in training than at rollout.

Shape letters: B batch, H x W pixels, C channels, h x w cells, g side of the token grid, M keypoints, d decoder width.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vla_model.config import VLAConfig

_STEM_STRIDE = 4


@dataclass(frozen=True, kw_only=True)
class CameraFeatures:
    """What one tower sees."""

    tokens: Tensor
    """[B, g * g + 1, d], the keypoint token last."""
    keypoints: Tensor
    """float32 [B, 2 M], x then y of each keypoint in [-1, 1], in the frame as it came (before the random shift)."""


class CameraTower(nn.Module):
    """Tower of one camera."""

    def __init__(self, config: VLAConfig, height: int, width: int) -> None:
        super().__init__()
        channels = config.vision_channels
        num_halvings = _num_halvings(max(height, width) // _STEM_STRIDE, config.keypoint_grid)
        widths = [max(channels >> (num_halvings - i), 32) for i in range(num_halvings)] + [channels]
        self.stem = nn.Sequential(
            nn.Conv2d(3, widths[0], 8, _STEM_STRIDE, padding=2), ChannelNorm(widths[0]), nn.SiLU()
        )
        self.halvings = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(before, after, 3, 2, padding=1), ChannelNorm(after), nn.SiLU())
                for before, after in pairwise(widths)
            )
        )
        self.blocks = nn.ModuleList(FilmBlock(channels, config.hidden_size) for _ in range(config.vision_blocks))
        self.heatmaps = nn.Conv2d(channels, config.num_keypoints, 1)
        self.to_keypoint_token = nn.Linear(2 * config.num_keypoints, config.hidden_size)
        self.pool = nn.Sequential(
            nn.Conv2d(channels, channels, 3, 2, padding=1), nn.SiLU(), nn.AdaptiveAvgPool2d(config.image_token_grid)
        )
        self.to_tokens = nn.Linear(channels, config.hidden_size)
        num_tokens = config.image_token_grid**2 + 1
        self.positions = nn.Parameter(torch.randn(num_tokens, config.hidden_size) * 0.02)

    def forward(self, frames: Tensor, film: Tensor, shift_px: Tensor | None = None) -> CameraFeatures:
        """
        Args:
            frames: uint8 [B, H, W, 3].
            film: [B, d], the instruction.
            shift_px: int64 [B, 2], by how many columns and rows to shift each frame first (see `shift_frames`).
        """
        height, width = frames.shape[1:3]
        if shift_px is None:
            shift_px = torch.zeros(len(frames), 2, dtype=torch.int64, device=frames.device)
        else:
            frames = shift_frames(frames, shift_px)
        # NHWC bytes seen as NCHW are channels-last memory already, which is what the convolutions like best.
        x = frames.permute(0, 3, 1, 2).float() / 127.5 - 1.0  # [B, 3, H, W]
        x = self.halvings(self.stem(x))  # [B, C, h, w]
        for block in self.blocks:
            x = block(x, film)
        extent_px = torch.tensor([width, height], device=frames.device)
        moved = 2.0 * shift_px.float() / extent_px  # [B, 2]
        keypoints = (spatial_softmax(self.heatmaps(x)) + moved[:, None]).flatten(1)  # [B, 2 M]
        tokens = self.to_tokens(self.pool(x).flatten(2).transpose(1, 2))  # [B, g * g, d]
        tokens = torch.cat([tokens, self.to_keypoint_token(keypoints)[:, None]], dim=1)
        return CameraFeatures(tokens=tokens + self.positions, keypoints=keypoints)


class FilmBlock(nn.Module):
    """x + conv(silu(film(norm(conv(x))))), where film scales and shifts channels by the instruction."""

    def __init__(self, channels: int, film_size: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = ChannelNorm(channels)
        self.film = nn.Linear(film_size, 2 * channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, film: Tensor) -> Tensor:
        scale, shift = self.film(film)[..., None, None].chunk(2, dim=1)  # [B, C, 1, 1]
        h = self.norm(self.conv1(x))
        return x + self.conv2(F.silu(torch.addcmul(shift, h, 1.0 + scale)))


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of every cell."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  LayerNorm names it so
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def spatial_softmax(heatmaps: Tensor) -> Tensor:
    """Expected position under each map's softmax: [B, M, h, w] -> float32 [B, M, 2], x right, y down, in [-1, 1].

    A position is the centre of a cell, so cell i of w lies at (2 i + 1) / w - 1.
    """
    num_rows, num_columns = heatmaps.shape[2:]
    probabilities = heatmaps.flatten(2).float().softmax(-1)  # [B, M, h * w]
    x = (2 * torch.arange(num_columns, device=heatmaps.device) + 1) / num_columns - 1
    y = (2 * torch.arange(num_rows, device=heatmaps.device) + 1) / num_rows - 1
    grid = torch.stack([x.repeat(num_rows), y.repeat_interleave(num_columns)], dim=-1)  # [h * w, 2]
    with torch.autocast(heatmaps.device.type, enabled=False):
        return probabilities @ grid


def shift_frames(frames: Tensor, shift_px: Tensor) -> Tensor:
    """Shift each frame by its own whole number of pixels, repeating the edge (DrQ, Kostrikov et al. 2021).

    Args:
        frames: uint8 [B, H, W, 3].
        shift_px: int64 [B, 2], columns and rows: what is at x, y comes from x + columns, y + rows.
    """
    batch, height, width, _ = frames.shape
    columns = (torch.arange(width, device=frames.device) + shift_px[:, :1]).clamp(0, width - 1)  # [B, W]
    rows = (torch.arange(height, device=frames.device) + shift_px[:, 1:]).clamp(0, height - 1)  # [B, H]
    index = torch.arange(batch, device=frames.device)
    return frames[index[:, None, None], rows[:, :, None], columns[:, None, :]]


def _num_halvings(side: int, largest: int) -> int:
    count = 0
    while side > largest:
        side, count = side // 2, count + 1
    return count
