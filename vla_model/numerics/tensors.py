"""Batches of tensors in nested dataclasses, dictionaries and tuples: iteration, mapping, rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any, Self, TypeVar

import torch
from torch import Tensor

B = TypeVar("B")


def tensors_of(batch: object) -> Iterator[Tensor]:
    """All tensors of a batch, in the order of fields and keys."""
    return (tensor for _, tensor in named_tensors(batch, ""))


def named_tensors(batch: object, name: str) -> Iterator[tuple[str, Tensor]]:
    """All tensors with their dotted names, which begin with `name`."""
    if isinstance(batch, Tensor):
        yield name, batch
    elif is_dataclass(batch):
        for field in fields(batch):
            yield from named_tensors(getattr(batch, field.name), f"{name}.{field.name}")
    elif isinstance(batch, dict):
        for key, value in batch.items():
            yield from named_tensors(value, f"{name}.{key}")
    elif isinstance(batch, tuple):
        for i, value in enumerate(batch):
            yield from named_tensors(value, f"{name}.{i}")


def each_tensor(batch: B, function: Callable[[Tensor], Tensor]) -> B:
    """A copy of the batch with function(tensor) for every tensor; everything else stays the same."""

    def of(value: Any) -> Any:
        if isinstance(value, Tensor):
            return function(value)
        if is_dataclass(value):
            return type(value)(**{field.name: of(getattr(value, field.name)) for field in fields(value)})
        if isinstance(value, dict):
            return {key: of(each) for key, each in value.items()}
        if isinstance(value, tuple):
            return tuple(of(each) for each in value)
        return value

    return of(batch)


class TensorBatch:
    """Base of a dataclass of tensors, or of nested batches of these, with a row for each sample."""

    def __len__(self) -> int:
        return len(next(tensors_of(self)))

    def rows(self, indices: Tensor | slice) -> Self:
        """Some of the samples."""
        return each_tensor(self, lambda tensor: tensor[indices])

    def part(self, index: int, count: int) -> Self:
        """The index-th of `count` interleaved parts."""
        return each_tensor(self, lambda tensor: tensor[index::count].contiguous())

    def to(self, device: torch.device | str) -> Self:
        """The batch on that device."""
        return each_tensor(self, lambda tensor: tensor.to(device))
