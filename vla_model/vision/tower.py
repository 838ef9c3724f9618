"""Frames -> image tokens and keypoints: one tower per camera, conditioned on the instruction.

    uint8 frame -> features, h x w cells, by
        conv          patch convolution of stride 4, convolution of stride 2: H/8 x W/8 cells
        vit           a small Vision Transformer, from scratch, one cell per patch
        pretrained    a transformers vision model shared by all cameras, and a linear projector (image_encoder.py)
    features -> residual blocks modulated by the instruction (FiLM, Perez et al. 2018)
    features -> image tokens, means over a grid or learned queries (resampler.py)
    features -> M heatmaps -> the expected x, y of each (spatial softmax, Levine et al. 2016) -> one keypoint token

Small policies fail mostly by imprecise localization, so the keypoints keep sub-cell positions that pooled tokens lose.
Normalisation is over channels (a LayerNorm on channels-last memory): GroupNorm is slow in bf16 on CPUs, and BatchNorm
computes differently in training and at rollout.

Shape letters: B batch, H x W pixels, C channels, h x w cells, M keypoints, d decoder width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vla_model.config import VLAConfig
from vla_model.numerics.precision import compute_dtype
from vla_model.vision.image_encoder import ImageEncoder, vit_config
from vla_model.vision.resampler import Means, Queries, cell_centres


@dataclass(frozen=True, kw_only=True)
class CameraFeatures:
    """The output of one tower."""

    tokens: Tensor
    """[B, V, d], the keypoint token last."""
    keypoints: Tensor
    """float32 [B, 2 M], x then y of each keypoint in [-1, 1], in the original frame, before the random shift."""
    heatmaps: Tensor
    """[B, M, h, w], before the softmax."""
    shift: Tensor
    """float32 [B, 2]: added to keypoints in [-1, 1] to undo the random shift."""


class CameraTower(nn.Module, ABC):
    """Tower of one camera; subclasses define frames -> features."""

    def __init__(self, config: VLAConfig, camera: str, encoder: ImageEncoder | None = None) -> None:
        """
        Args:
            config: of the model.
            camera: name of one of its cameras.
            encoder: shared by all cameras, if any.
        """
        super().__init__()
        channels = config.vision_channels
        self._build(config, camera, encoder)
        self.blocks = nn.ModuleList(FilmBlock(channels, config.hidden_size) for _ in range(config.vision_blocks))
        self.heatmaps = nn.Conv2d(channels, config.num_keypoints, 1)
        self.to_keypoint_token = nn.Linear(2 * config.num_keypoints, config.hidden_size)
        queries = config.image_queries
        self.resample = Queries(channels, queries) if queries else Means(config.image_token_grid)
        self.to_tokens = nn.Linear(channels, config.hidden_size)
        self.positions = nn.Parameter(torch.randn(self.resample.num_tokens + 1, config.hidden_size) * 0.02)

    @abstractmethod
    def _build(self, config: VLAConfig, camera: str, encoder: ImageEncoder | None) -> None:
        """Make the modules that `_features` uses."""

    @abstractmethod
    def _features(self, frames: Tensor, light: Tensor | None) -> Tensor:
        """uint8 [B, H, W, 3], colours multiplied by light [B, 3] if any -> [B, C, h, w]."""

    def forward(
        self, frames: Tensor, film: Tensor, shift_px: Tensor | None = None, light: Tensor | None = None
    ) -> CameraFeatures:
        """Features of the frames, conditioned on the instruction.

        Args:
            frames: uint8 [B, H, W, 3].
            film: [B, d], the instruction's summary.
            shift_px: int64 [B, 2], columns and rows to shift each frame by first (see `shift_frames`).
            light: float32 [B, 3], factors of its red, green and blue.
        """
        if shift_px is not None:
            frames = shift_frames(frames, shift_px)
        x = self._features(frames, light)  # [B, C, h, w]
        for block in self.blocks:
            x = block(x, film)
        heatmaps = self.heatmaps(x)  # [B, M, h, w]
        shift = torch.zeros(len(frames), 2, device=frames.device)
        if shift_px is not None:
            height, width = frames.shape[1:3]
            shift = torch.stack([2.0 * shift_px[:, 0] / width, 2.0 * shift_px[:, 1] / height], dim=1)
        keypoints = (spatial_softmax(heatmaps) + shift[:, None]).flatten(1)  # [B, 2 M]
        tokens = self.to_tokens(self.resample(x))  # [B, V - 1, d]
        tokens = torch.cat([tokens, self.to_keypoint_token(keypoints)[:, None]], dim=1)
        return CameraFeatures(tokens=tokens + self.positions, keypoints=keypoints, heatmaps=heatmaps, shift=shift)


class ConvTower(CameraTower):
    """Convolutions, from scratch."""

    def _build(self, config: VLAConfig, camera: str, encoder: ImageEncoder | None) -> None:
        del camera, encoder
        channels = config.vision_channels
        self.stem = Stem(channels // 2)
        self.halving = nn.Conv2d(channels // 2, channels, 3, 2, padding=1)
        self.norm = ChannelNorm(channels)

    def _features(self, frames: Tensor, light: Tensor | None) -> Tensor:
        return F.silu(self.norm(self.halving(F.silu(self.stem(frames, light)))))


class ViTTower(CameraTower):
    """A Vision Transformer per camera, from scratch."""

    def _build(self, config: VLAConfig, camera: str, encoder: ImageEncoder | None) -> None:
        del encoder
        height, width = next(size for name, *size in config.cameras or () if name == camera)
        shape = vit_config(
            height,
            width,
            channels=config.vision_channels,
            layers=config.vision_layers,
            patch_px=config.vision_patch_px,
        )
        self.encoder = ImageEncoder(shape, [height, width], config.image_mean, config.image_std)

    def _features(self, frames: Tensor, light: Tensor | None) -> Tensor:
        return self.encoder(frames, light)


class PretrainedTower(CameraTower):
    """An encoder shared by all cameras, and a projection of its features per camera."""

    def _build(self, config: VLAConfig, camera: str, encoder: ImageEncoder | None) -> None:
        del camera
        assert encoder is not None, "the model makes the encoder that its towers share"
        self._encoder = (encoder,)  # in a tuple, so that its weights are registered in the model only, and saved once
        self.project = nn.Conv2d(encoder.model.config.hidden_size, config.vision_channels, 1)
        self.norm = ChannelNorm(config.vision_channels)

    def _features(self, frames: Tensor, light: Tensor | None) -> Tensor:
        (encoder,) = self._encoder
        return self.norm(self.project(encoder(frames, light).to(compute_dtype(self.project.weight))))


TOWERS: dict[str, type[CameraTower]] = {"conv": ConvTower, "vit": ViTTower, "pretrained": PretrainedTower}
"""Towers by name."""


class Stem(nn.Module):
    """Bytes -> features at a quarter of the resolution: a convolution over overlapping patches.

    Integers below 256 are exact in bfloat16, so the input is unscaled and the weights are scaled instead.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 8, 4, padding=2)

    def forward(self, frames: Tensor, light: Tensor | None = None) -> Tensor:
        """uint8 [B, H, W, 3], colours multiplied by light [B, 3] if any -> [B, C, H / 4, W / 4]."""
        x = frames.flatten(2).to(compute_dtype(self.conv.weight))  # [B, H, W * 3]
        if light is not None:
            # Of a whole row at once: over an innermost dimension of 3, CPUs multiply number by number.
            x.mul_(light.to(x.dtype).repeat(1, frames.shape[2])[:, None])
        # NHWC viewed as NCHW is channels-last memory already, the fastest for convolutions.
        x = x.sub_(128.0).view(frames.shape).permute(0, 3, 1, 2)
        return F.conv2d(x, self.conv.weight / 128.0, self.conv.bias, self.conv.stride, self.conv.padding)


class FilmBlock(nn.Module):
    """x + conv(silu(film(norm(conv(x))))), where film scales and shifts channels, conditioned on the instruction."""

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
    """Expected position under each map's softmax, in `cell_centres` coordinates: [B, M, h, w] -> float32 [B, M, 2]."""
    probabilities = heatmaps.flatten(2).float().softmax(-1)  # [B, M, h * w]
    centres = cell_centres(*heatmaps.shape[2:], heatmaps.device)  # [h * w, 2]
    with torch.autocast(heatmaps.device.type, enabled=False):
        return probabilities @ centres


def shift_frames(frames: Tensor, shift_px: Tensor) -> Tensor:
    """Shift each frame by its own whole number of pixels, repeating the edge (DrQ, Kostrikov et al. 2021).

    Args:
        frames: uint8 [B, H, W, 3].
        shift_px: int64 [B, 2], columns and rows: the pixel at x, y comes from x + columns, y + rows.
    """
    height, width = frames.shape[1:3]
    if frames.device.type != "cpu":
        return gather_shifted(frames, shift_px)
    margin = int(shift_px.abs().max())
    top, bottom = frames[:, :1].expand(-1, margin, -1, -1), frames[:, -1:].expand(-1, margin, -1, -1)
    padded = torch.cat([top, frames, bottom], dim=1)
    left, right = padded[:, :, :1].expand(-1, -1, margin, -1), padded[:, :, -1:].expand(-1, -1, margin, -1)
    padded = torch.cat([left, padded, right], dim=2)
    # Slicing whole rows is six times faster than gathering single pixels.
    starts = (shift_px + margin).tolist()
    return torch.stack([frame[y : y + height, x : x + width] for frame, (x, y) in zip(padded, starts, strict=True)])


def gather_shifted(frames: Tensor, shift_px: Tensor) -> Tensor:
    """As `shift_frames`, without reading the shifts on the CPU, which would synchronise with a GPU."""
    batch, height, width = frames.shape[:3]
    device = frames.device
    rows = (torch.arange(height, device=device) + shift_px[:, 1:]).clamp(0, height - 1)  # [B, H]
    columns = (torch.arange(width, device=device) + shift_px[:, :1]).clamp(0, width - 1)  # [B, W]
    return frames[torch.arange(batch, device=device)[:, None, None], rows[:, :, None], columns[:, None]]
