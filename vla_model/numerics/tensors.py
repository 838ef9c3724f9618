"""Batches of nested dataclasses and dictionaries, as one taken by the tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

from torch import Tensor

B = TypeVar("B")


def tensors_of(batch: object) -> Iterator[Tensor]:
    """All of them, in the order of fields and keys."""
    return (tensor for _, tensor in named_tensors(batch, ""))


def named_tensors(batch: object, name: str) -> Iterator[tuple[str, Tensor]]:
    """The same with their dotted names, which begin with that of the batch."""
    if isinstance(batch, Tensor):
        yield name, batch
    elif is_dataclass(batch):
        for field in fields(batch):
            yield from named_tensors(getattr(batch, field.name), f"{name}.{field.name}")
    elif isinstance(batch, dict):
        for key, value in batch.items():
            yield from named_tensors(value, f"{name}.{key}")


def each_tensor(batch: B, function: Callable[[Tensor], Tensor]) -> B:
    """The same batch of other tensors: what `function` makes of each. Whatever else is in it stays as it is."""

    def of(value: Any) -> Any:
        if isinstance(value, Tensor):
            return function(value)
        if is_dataclass(value):
            return type(value)(**{field.name: of(getattr(value, field.name)) for field in fields(value)})
        if isinstance(value, dict):
            return {key: of(each) for key, each in value.items()}
        return value

    return of(batch)
