"""Means over a batch whose parts may be computed in parallel.

    mean over the batch = sum over all parts / weight of all parts

A loss that takes its means here has the same value and gradient, up to rounding, however many parts a batch is computed
in: part i of P returns s_i / mean_j w_j, and the mean of that over the parts is sum_i s_i / sum_j w_j. If all parts
have the same weight, each returns its own mean.

`of_all_parts` gathers over the parts, so all of them must call it, in the same order. The context manager `gathering`
around the loss sets how to gather, as torch.distributed has a default group; without it a batch is whole.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

Gather = Callable[[Tensor], Tensor]
"""This part's tensor [...] -> those of all P parts, [P, ...], in the same order for all."""


def _alone(value: Tensor) -> Tensor:
    return value[None]


_gather: ContextVar[Gather] = ContextVar("gather", default=_alone)


@contextmanager
def gathering(gather: Gather) -> Generator[None]:
    """Within this context, and in this thread, a batch is one of several parts."""
    token = _gather.set(gather)
    try:
        yield
    finally:
        _gather.reset(token)


def of_all_parts(value: Tensor) -> Tensor:
    """[...] -> [P, ...], without gradient."""
    return _gather.get()(value.detach())


def mean(total: Tensor, weight: Tensor) -> Tensor:
    """This part's contribution to a mean over the batch, which is the mean of it over the parts; 0 for zero weight.

    Args:
        total: sum over this part.
        weight: of this part, e.g. the number of summed elements.
    """
    return total / _above_0(of_all_parts(weight.float()).mean(0))


def whole_mean(total: Tensor, weight: Tensor) -> Tensor:
    """The mean over the whole batch, the same in every part, without gradient."""
    return of_all_parts(total.float()).sum(0) / _above_0(of_all_parts(weight.float()).sum(0))


def _above_0(weight: Tensor) -> Tensor:
    return torch.where(weight > 0, weight, 1.0)
