"""Means over a batch, parts of which may be computed beside each other.

    mean over the batch = sum over all its parts / weight of all its parts

A loss that takes its means here says the same of a batch, value and gradient up to rounding, in however many parts it
is computed: part i of P reports s_i / mean_j w_j, and the mean of that over the parts is sum_i s_i / sum_j w_j. Where
all parts have as much to average over, each thereby reports its own mean.

Parts meet in `of_all_parts`, so all of them call it, in the same order. Who they are is said around the loss, by
`among`, as torch.distributed's default group is; without it a batch is whole.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

Gather = Callable[[Tensor], Tensor]
"""This part's tensor [...] -> that of all P parts, [P, ...], in an order that is the same for all."""


def _alone(value: Tensor) -> Tensor:
    return value[None]


_gather: ContextVar[Gather] = ContextVar("gather", default=_alone)


@contextmanager
def among(gather: Gather) -> Generator[None]:
    """Within it, and in this thread, a batch is one part of several."""
    token = _gather.set(gather)
    try:
        yield
    finally:
        _gather.reset(token)


def of_all_parts(value: Tensor) -> Tensor:
    """[...] -> [P, ...]; no gradient passes."""
    return _gather.get()(value.detach())


def mean(total: Tensor, weight: Tensor) -> Tensor:
    """This part's share in a mean over the batch: the mean of it over the parts is that mean; 0 where there is nothing.

    Args:
        total: sum over this part.
        weight: of what was summed, e.g. how many.
    """
    return total / _above_0(of_all_parts(weight.float()).mean(0))


def whole_mean(total: Tensor, weight: Tensor) -> Tensor:
    """The mean over the batch itself, the same in every part; no gradient passes."""
    return of_all_parts(total.float()).sum(0) / _above_0(of_all_parts(weight.float()).sum(0))


def _above_0(weight: Tensor) -> Tensor:
    return torch.where(weight > 0, weight, 1.0)
