"""Files of tensors that say whether they are what was written: safetensors with a SHA-256 of every tensor.

The hashes stand in the file's own metadata, so they travel with the weights, and other readers of safetensors pass them
over. A flipped bit can make a finite number of another and a policy that fails without a word, so a tensor that differs
from what was written is refused by name, and so is one with a number that is not finite. Files without hashes, as they
were written before, are read all the same. Nothing is ever unpickled.
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
    # One key alone: safetensors writes several in an order of chance, and equal weights should be equal files.
    write_tensors(path, contiguous, {_HASHES: json.dumps(hashes)})


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a plain safetensors file, which whoever may read its folder may read.

    Raises:
        OSError: the disk is full, or the machine refuses it otherwise; safetensors calls that an error of its own.
    """
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata=metadata)
    except SafetensorError as error:
        if (number := _OS_ERROR.search(str(error))) is None:
            raise
        code = int(number[1])
        raise OSError(code, os.strerror(code), str(path)) from error
    path.chmod(path.parent.stat().st_mode & 0o666)  # safetensors lets its owner alone read it


def load_tensors(path: Path) -> dict[str, Tensor]:
    """What `save_tensors` wrote, on the CPU.

    Raises:
        UserError: the file is missing, broken or not as it was written, or a number is not finite.
    """
    if not path.is_file():
        raise UserError(f"{path.parent} lacks {path.name}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
        hashes = json.loads(metadata[_HASHES]) if _HASHES in metadata else None
    except (SafetensorError, ValueError) as error:
        raise UserError(f"{path.name} in {path.parent} is broken: {error}") from error
    if hashes is not None:
        changed = [name for name, tensor in sorted(tensors.items()) if hashes.get(name) != tensor_hash(tensor)]
        if changed or len(hashes) != len(tensors):
            raise UserError(
                f"{path.name} in {path.parent} is not what was written: {', '.join(changed[:5]) or 'a tensor'} has "
                "another checksum; take another copy of it"
            )
    check_finite(tensors, str(path))
    return tensors


def check_finite(tensors: Mapping[str, Tensor], where: str) -> None:
    """
    Raises:
        UserError: a tensor has numbers that are not finite; the message names the first few.
    """
    if broken := not_finite(tensors):
        more = f" and {len(broken) - 5} more" if len(broken) > 5 else ""
        raise UserError(f"{where} has weights that are not finite: {', '.join(broken[:5])}{more}")


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """The names, sorted, of those that have numbers that are not finite."""
    return [name for name, tensor in sorted(tensors.items()) if not _is_finite(tensor)]


def misfits(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """What keeps given tensors from being taken for the expected ones, in words."""
    problems = [f"{name} is missing" for name in expected.keys() - given.keys()]
    problems += [f"{name} is not of this model" for name in given.keys() - expected.keys()]
    problems += [
        f"{name} has shape {tuple(given[name].shape)}, expected {tuple(expected[name].shape)}"
        for name in expected.keys() & given.keys()
        if expected[name].shape != given[name].shape
    ]
    return sorted(problems)


def tensor_hash(tensor: Tensor) -> str:
    """SHA-256 of dtype, shape and bytes."""
    digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}\n".encode())
    digest.update(tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _is_finite(tensor: Tensor) -> bool:
    # Both ends of the range are finite only if all between them is, and finding them takes no memory of its own.
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    low, high = tensor.aminmax()
    return bool(low.isfinite() & high.isfinite())
