"""A transformers vision model as image encoder: SigLIP, DINOv2, CLIP, ViT and others with patches.

    uint8 frame -> [0, 1] -> resized -> (x - mean) / std -> the model -> its patches' features

Size, mean and standard deviation are those of the folder's image processor. The whole frame is resized to that size,
without the centre crop of CLIP's and DINOv2's processors, because objects near the edges matter. Of the output only the
patches are kept, which come last, after a class token or registers. Of image-text models the vision half is used.

Shape letters: B batch, H x W pixels, C features, h x w patches.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel

from envs.errors import UserError
from vla_model.backbones.pretrained import check_weights, folder_config, load_weights
from vla_model.files.folders import read_json

_PROCESSOR_FILE = "preprocessor_config.json"


@dataclass(frozen=True, kw_only=True)
class EncoderShape:
    """Config and preprocessing of a vision model."""

    config: PretrainedConfig
    size_px: list[int]
    """Height and width of its input."""
    mean: list[float]
    std: list[float]


class ImageEncoder(nn.Module):
    """Frames -> patch features."""

    def __init__(
        self,
        config: PretrainedConfig,
        size_px: list[int],
        mean: list[float],
        std: list[float],
        model: PreTrainedModel | None = None,
    ) -> None:
        """
        Args:
            config: of the vision model.
            size_px: height and width to which frames are resized.
            mean: of red, green and blue in [0, 1].
            std: likewise.
            model: a pretrained one; a random one where None.
        """
        super().__init__()
        self.model = _without_pooler(model or AutoModel.from_config(config))
        self.model.set_attn_implementation("eager")
        self._size = tuple(size_px)
        self._grid = tuple(side // patch for side, patch in zip(self._size, _sides(config.patch_size), strict=True))
        # DINOv2 has no such argument: it always interpolates its positions for other sizes.
        asked = "interpolate_pos_encoding" in inspect.signature(self.model.forward).parameters
        is_native = self._size == _sides(config.image_size)
        self._how: dict[str, Any] = {"interpolate_pos_encoding": True} if asked and not is_native else {}
        self._mean, self._std = (nn.Buffer(torch.tensor(x)[:, None, None], persistent=False) for x in (mean, std))

    def forward(self, frames: Tensor, light: Tensor | None = None) -> Tensor:
        """uint8 [B, H, W, 3], colours multiplied by light [B, 3] if any -> [B, C, h, w]."""
        x = frames.permute(0, 3, 1, 2).float() / 255.0
        if light is not None:
            x = (x * light[:, :, None, None]).clamp(0.0, 1.0)
        if x.shape[2:] != self._size:
            x = F.interpolate(x, self._size, mode="bilinear", antialias=True, align_corners=False)
        x = ((x - self._mean) / self._std).to(self.model.dtype)
        hidden = self.model(pixel_values=x, **self._how).last_hidden_state  # [B, others + h * w, C]
        rows, columns = self._grid
        return hidden[:, -rows * columns :].transpose(1, 2).unflatten(2, (rows, columns))


def vit_config(height: int, width: int, *, channels: int, layers: int, patch_px: int) -> PretrainedConfig:
    """A small ViT (Dosovitskiy et al. 2021) for frames of that size.

    Raises:
        UserError: the patches do not fill the frame.
    """
    if height % patch_px or width % patch_px:
        raise UserError(f"patches of {patch_px} pixels do not fill a frame of {height} x {width}")
    return AutoConfig.for_model(
        "vit",
        image_size=[height, width],
        patch_size=patch_px,
        hidden_size=channels,
        num_hidden_layers=layers,
        num_attention_heads=max(1, channels // 32),
        intermediate_size=2 * channels,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )


def load_image_encoder(folder: str | Path) -> PreTrainedModel:
    """The vision model of a local folder.

    Raises:
        UserError: it is no folder of a vision model with patches, or a part is missing, truncated or inconsistent; the
            message says which.
    """
    folder = Path(folder)
    config = encoder_shape(folder).config
    check_weights(folder)
    return load_weights(folder, config, torch.float32)


def encoder_shape(folder: str | Path) -> EncoderShape:
    """Of the vision model and image processor of a local folder.

    Raises:
        UserError: it is no folder of a vision model with patches, or one of the two files is damaged.
    """
    folder = Path(folder)
    config = _vision_config(folder)
    config.dtype = torch.float32  # loaded and trained in float32, whatever it was saved in
    size_px, mean, std = _preprocessing(folder, config)
    return EncoderShape(config=config, size_px=size_px, mean=mean, std=std)


def _vision_config(folder: Path) -> PretrainedConfig:
    """The config of the folder's vision model.

    Raises:
        UserError: there is none, or it is of a model without patches.
    """
    config = folder_config(folder)
    config = getattr(config, "vision_config", config)
    if any(getattr(config, name, None) is None for name in ("image_size", "patch_size", "hidden_size")):
        raise UserError(
            f"{folder / 'config.json'} is of {config.model_type!r}, which has no patches of one size; vision models "
            "that have: SigLIP, DINOv2, CLIP, ViT and others"
        )
    if hasattr(config, "vision_use_head"):
        config.vision_use_head = False  # SigLIP's pooled output is unused
    return config


def _preprocessing(folder: Path, config: PretrainedConfig) -> tuple[list[int], list[float], list[float]]:
    """Size, mean and standard deviation."""
    path = folder / _PROCESSOR_FILE
    if not path.is_file():
        raise UserError(f"{folder} lacks {_PROCESSOR_FILE}, which holds size, mean and std of the model's input")
    content = read_json(path)
    size = content.get("crop_size" if content.get("do_center_crop") else "size")
    known = isinstance(size, dict) and {"height", "width"} <= size.keys()
    size_px = [int(size["height"]), int(size["width"])] if known else list(_sides(config.image_size))
    if not content.get("do_normalize", True):
        return size_px, [0.0] * 3, [1.0] * 3
    values = [content.get(name) for name in ("image_mean", "image_std")]
    if any(not isinstance(value, list) or len(value) != 3 for value in values):
        raise UserError(f"{path} must have image_mean and image_std of three numbers each, got {values}")
    mean, std = ([float(x) for x in value] for value in values if value is not None)
    return size_px, mean, std


def _without_pooler(model: PreTrainedModel) -> PreTrainedModel:
    """The pooled output is unused, and weight decay would still change the pooler's weights."""
    if getattr(model, "pooler", None) is not None:
        model.register_module("pooler", None)
    return model


def _sides(size: int | list[int] | tuple[int, ...]) -> tuple[int, ...]:
    return (size, size) if isinstance(size, int) else tuple(size)
