"""The gradient of a batch, computed by several processes, each on its share.

By torch's DistributedDataParallel, which overlaps the all-reduce with the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Generic

import torch
from torch import Tensor, nn
from torch.distributed.distributed_c10d import all_gather, all_reduce, get_world_size
from torch.nn.parallel import DistributedDataParallel

from agent.learning.gradients import Loss, M, Objective, Splittable
from vla_model.numerics.means import gathering


class DataParallel(Generic[M]):
    """Gradients computed by every process of torch.distributed's group, each on its share of the batch."""

    def __init__(self, model: M, parameters: Sequence[nn.Parameter]) -> None:
        """Called in all processes; all start with rank 0's weights."""
        self._parameters = parameters
        # A world without labels leaves the localization heads unused.
        self._objective = DistributedDataParallel(Objective(model), find_unused_parameters=True)

    def __call__(self, share: Splittable, loss: Loss[M]) -> dict[str, float]:
        with gathering(_gather):
            value, metrics = self._objective(loss, share)
        value.backward()
        for parameter in self._parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        means = _gather(torch.stack(list(metrics.values()))).mean(0)
        return dict(zip(metrics, means.tolist(), strict=True))

    def summed(self, counts: Tensor) -> Tensor:
        """Counts summed over all processes, in place."""
        all_reduce(counts)
        return counts

    def each(self, function: Callable[[Tensor], Tensor], tensors: Iterable[Tensor]) -> Iterable[Tensor]:
        """As `map`."""
        return map(function, tensors)

    def close(self) -> None:
        """The process group is closed by its creator."""


def _gather(value: Tensor) -> Tensor:
    """All-gather, stacked: see vla_model/numerics/means.py."""
    found = [torch.empty_like(value) for _ in range(get_world_size())]
    all_gather(found, value.contiguous())
    return torch.stack(found)
