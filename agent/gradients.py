"""The gradient of a batch: the mean over its parts of the gradient of each part's loss.

    Threads     batch -> P parts -> P threads, each with one core -> mean
    Processes   each of n processes: its share of the batch -> P / n parts, one after the other -> mean over processes
    Captured    batch -> P parts, beside each other on a GPU -> mean, replayed (agent/captured.py)

Row i of a batch is in part i % P, and in the share of process i % n, so both compute the same P parts. What is left to
differ is the order of sums. Either leaves the mean in every parameter's .grad, zeros where the loss does not depend on
it, and returns the mean of what the loss reports.

Two threads with a core each beat one operation split over two cores by far at these sizes. Threads share the weights;
each asks autograd for its own gradients, so nothing is accumulated concurrently and the sum has a fixed order.

Processes use torch's DistributedDataParallel, which sums over processes while it is still differentiating. It allows
one differentiation at a time, so a process's parts follow each other; before the last it only accumulates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import nullcontext
from threading import Barrier
from typing import Any, Generic, Protocol, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.distributed_c10d import all_reduce, get_world_size
from torch.nn.parallel import DistributedDataParallel

from vla_model.precision import native_dtype


class Splittable(Protocol):
    """A batch that can be computed in parts."""

    def part(self, index: int, count: int) -> Self:
        """The index-th of `count` interleaved parts."""
        ...


M = TypeVar("M", bound=nn.Module)
Loss = Callable[[M, Any], tuple[Tensor, dict[str, Tensor]]]
"""(model, Splittable) -> what to differentiate, and what to report: scalars."""


class Objective(nn.Module, Generic[M]):
    """A loss as the output of a module, in the number format of the model's device."""

    def __init__(self, model: M) -> None:
        super().__init__()
        self.model = model
        self._device = next(model.parameters()).device
        self._dtype = native_dtype(self._device)

    def forward(self, loss: Loss[M], part: Splittable) -> tuple[Tensor, dict[str, Tensor]]:
        # Autocast's cache of converted weights is one for all threads: with it, what a thread finds there, and so the
        # order of its sums, would depend on the other's timing.
        with torch.autocast(self._device.type, self._dtype, self._dtype != torch.float32, cache_enabled=False):
            return loss(self.model, part)


Gradients = tuple[Sequence[Tensor], dict[str, Tensor]]
"""One per parameter, and what the loss reports."""


def gradients_of(
    objective: Objective[M], loss: Loss[M], part: Splittable, parameters: Sequence[nn.Parameter]
) -> Gradients:
    """Of one part's loss."""
    value, metrics = objective(loss, part)
    return torch.autograd.grad(value, parameters, materialize_grads=True), metrics


def mean_over_parts(parts: Sequence[Gradients]) -> Gradients:
    """Of what each part's loss gave."""
    each = zip(*(gradients for gradients, _ in parts), strict=True)
    # Of one part too: a convolution's gradient may come in an order of dimensions that the optimiser refuses.
    gradients = [torch.stack(of_parts).mean(0) for of_parts in each]
    return gradients, {name: torch.stack([metrics[name] for _, metrics in parts]).mean(0) for name in parts[0][1]}


class Threads(Generic[M]):
    """Gradients computed in threads of this process."""

    def __init__(self, model: M, parameters: Sequence[nn.Parameter], num_parts: int) -> None:
        self._objective = Objective(model)
        self._parameters = parameters
        self._num_parts = num_parts
        self._threads = ThreadPoolExecutor(
            num_parts, thread_name_prefix="learner", initializer=torch.set_num_threads, initargs=(1,)
        )
        # All begin now: what they set is in part the whole process's, and decides how sums are rounded. A policy that
        # acts here before the first update must round as one that acts after it.
        ready = Barrier(num_parts, timeout=60.0)
        wait([self._threads.submit(ready.wait) for _ in range(num_parts)])

    def __call__(self, batch: Splittable, loss: Loss[M]) -> dict[str, float]:
        count = self._num_parts
        futures = [
            self._threads.submit(gradients_of, self._objective, loss, batch.part(i, count), self._parameters)
            for i in range(count)
        ]
        gradients, metrics = mean_over_parts([future.result() for future in futures])
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient
        return {name: float(value) for name, value in metrics.items()}

    def summed(self, counts: Tensor) -> Tensor:
        """What was counted in all processes: there is one."""
        return counts

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown()


class Processes(Generic[M]):
    """Gradients computed by every process of torch.distributed's group, each on its share of the batch."""

    def __init__(self, model: M, parameters: Sequence[nn.Parameter], num_parts: int) -> None:
        """All processes do this together; they go on with rank 0's weights."""
        self._parameters = parameters
        self._num_parts = num_parts
        # A world without labels leaves the localization heads unused.
        self._objective = DistributedDataParallel(Objective(model), find_unused_parameters=True)

    def __call__(self, share: Splittable, loss: Loss[M]) -> dict[str, float]:
        count = self._num_parts // get_world_size()
        reports: list[dict[str, Tensor]] = []
        for i in range(count):
            with self._objective.no_sync() if i < count - 1 else nullcontext():
                value, metrics = self._objective(loss, share.part(i, count))
                (value / count).backward()
            reports.append(metrics)
        for parameter in self._parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        sums = torch.stack([torch.stack([metrics[name] for metrics in reports]).sum() for name in reports[0]])
        all_reduce(sums)
        return dict(zip(reports[0], (sums / self._num_parts).tolist(), strict=True))

    def summed(self, counts: Tensor) -> Tensor:
        """What was counted in all processes, in place."""
        all_reduce(counts)
        return counts

    def close(self) -> None:
        """The group belongs to who made it."""
