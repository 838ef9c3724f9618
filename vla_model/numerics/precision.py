"""Device and number format of the computation, from this process's hardware and torch's autocast."""

from __future__ import annotations

import torch
from torch import Tensor

from vla_model.numerics.dtypes import DtypeName


def best_device() -> torch.device:
    """The GPU if this process has one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def resolve_dtype(name: DtypeName, device: torch.device) -> torch.dtype:
    """Dtype of the computation under that name, besides 8-bit products; "auto" is `native_dtype`."""
    if name != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.bfloat16}[name]
    return native_dtype(device)


def native_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device has it in hardware, else float32."""
    return torch.bfloat16 if has_native_bf16(device) else torch.float32


def has_native_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 matrices in hardware; emulated, they are slower than float32."""
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def compute_dtype(parameter: Tensor) -> torch.dtype:
    """Dtype of a product with this parameter: autocast's if enabled, else the parameter's."""
    device = parameter.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else parameter.dtype
