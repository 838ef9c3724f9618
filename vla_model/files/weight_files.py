"""Safetensors files with a SHA-256 checksum of every tensor.

The checksums are in the file's metadata, which other readers of safetensors ignore. A flipped bit can leave a weight
finite and the policy silently broken, so a tensor that differs from its checksum, or is not finite, is rejected by
name. Older files without checksums are read as well. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from envs.errors import UserError

_HASHES = "sha256"
"""The key of a file's metadata that holds {tensor: hash} as JSON."""
_OS_ERROR = re.compile(r"\(os error (\d+)\)")


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write the file.

    Raises:
        UserError: a number is not finite; nothing is written.
        OSError: see `write_tensors`.
    """
    check_finite(tensors, str(path))
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    hashes = {name: tensor_hash(tensor) for name, tensor in sorted(contiguous.items())}
    # A single key: safetensors writes several in random order, and equal weights should be equal files.
    write_tensors(path, contiguous, {_HASHES: json.dumps(hashes)})


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a plain safetensors file, with read permission for all who may read its folder.

    Raises:
        OSError: the disk is full, or another error of the system, which safetensors raises as its own class.
    """
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata=metadata)
    except SafetensorError as error:
        if (number := _OS_ERROR.search(str(error))) is None:
            raise
        code = int(number[1])
        raise OSError(code, os.strerror(code), str(path)) from error
    path.chmod(path.parent.stat().st_mode & 0o666)  # safetensors makes it readable by its owner only


def load_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of `save_tensors`, on the CPU.

    Raises:
        UserError: the file is missing, damaged or not as it was written, or a tensor is not finite.
    """
    if not path.is_file():
        raise UserError(f"{path.parent} lacks {path.name}; take a whole copy of it")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        hashes = json.loads(metadata[_HASHES]) if _HASHES in metadata else None
    except (SafetensorError, ValueError) as error:
        raise UserError(f"{path.name} in {path.parent} is broken: {error}; take another copy") from error
    if hashes is not None:
        changed = [name for name, tensor in sorted(tensors.items()) if hashes.get(name) != tensor_hash(tensor)]
        if changed or len(hashes) != len(tensors):
            raise UserError(
                f"{path.name} in {path.parent} is damaged: {', '.join(changed[:5]) or 'a tensor'} has "
                "another checksum; take another copy"
            )
    check_finite(tensors, str(path))
    return tensors


def check_finite(tensors: Mapping[str, Tensor], where: str) -> None:
    """
    Raises:
        UserError: tensors are not finite; the message names the first few.
    """
    if broken := not_finite(tensors):
        more = f" and {len(broken) - 5} more" if len(broken) > 5 else ""
        raise UserError(
            f"{where} has weights that are not finite: {', '.join(broken[:5])}{more}; take an earlier checkpoint"
        )


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Sorted names of the tensors that are not finite."""
    return [name for name, tensor in sorted(tensors.items()) if not _is_finite(tensor)]


def mismatches(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    """Messages for missing, unexpected and differently shaped tensors."""
    problems = [f"{name} is missing" for name in expected.keys() - found.keys()]
    problems += [f"{name} is not of this model" for name in found.keys() - expected.keys()]
    problems += [
        f"{name} has shape {tuple(found[name].shape)}, expected {tuple(expected[name].shape)}"
        for name in expected.keys() & found.keys()
        if expected[name].shape != found[name].shape
    ]
    return sorted(problems)


def tensor_hash(tensor: Tensor) -> str:
    """SHA-256 of dtype, shape and bytes."""
    digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}\n".encode())
    digest.update(tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _is_finite(tensor: Tensor) -> bool:
    # Minimum and maximum are finite only if all values are, and computing them takes no extra memory.
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    low, high = tensor.aminmax()
    return bool(low.isfinite() & high.isfinite())
