"""The gradient of a batch's loss, computed in parts.

    Threads        batch -> P parts -> P threads, each with one core -> mean
    DataParallel   each of n processes: its share of the batch -> mean over processes (agent/learning/data_parallel.py)
    Captured       the whole batch, replayed on a GPU (agent/learning/captured.py)

Row i of a batch is in part i % P, and in the share of process i % n. A loss that takes its means as numerics/means.py
has them, over the batch and not over a part, has one value and one gradient however many parts there are: what is left
to differ is the order of sums. Each leaves the gradient in every parameter's .grad, zeros where the loss does not
depend on it, and returns what the loss reports. A batch with fewer rows than parts has a part for each row.

Two threads with a core each beat one operation split over two cores by far at these sizes. Threads share the weights;
each asks autograd for its own gradients, so nothing is accumulated concurrently and the sum has a fixed order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from threading import Barrier, BrokenBarrierError
from typing import Any, Generic, Protocol, Self, TypeVar

import torch
from torch import Tensor, nn

from vla_model.numerics.means import among
from vla_model.numerics.precision import native_dtype
from vla_model.numerics.tensors import tensors_of


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
        count = min(self._num_parts, num_rows(batch))
        meeting = _Meeting(count)
        futures = [self._threads.submit(self._part, batch.part(i, count), loss, meeting, i) for i in range(count)]
        errors = [error for future in futures if (error := future.exception()) is not None]
        if errors:  # of the one that failed, not of those that waited for it
            raise next((error for error in errors if not isinstance(error, BrokenBarrierError)), errors[0])
        gradients, metrics = mean_over_parts([future.result() for future in futures])
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient
        return {name: float(value) for name, value in metrics.items()}

    def _part(self, part: Splittable, loss: Loss[M], meeting: _Meeting, index: int) -> Gradients:
        try:
            with among(partial(meeting.gather, index)):
                return gradients_of(self._objective, loss, part, self._parameters)
        except BaseException:
            meeting.end()
            raise

    def summed(self, counts: Tensor) -> Tensor:
        """What was counted in all processes: there is one."""
        return counts

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown()


class _Meeting:
    """Where threads show each other a tensor, as often as all of them come."""

    def __init__(self, count: int) -> None:
        self._barrier = Barrier(count)
        self._shown: dict[int, Tensor] = {}

    def gather(self, index: int, value: Tensor) -> Tensor:
        """See vla_model/numerics/means.py."""
        self._shown[index] = value
        self._barrier.wait()
        found = torch.stack([self._shown[i] for i in range(self._barrier.parties)])
        self._barrier.wait()  # nobody shows the next before all have looked
        return found

    def end(self) -> None:
        """One of them will not come any more."""
        self._barrier.abort()


def num_rows(batch: Splittable) -> int:
    """Samples of a batch."""
    return len(next(tensors_of(batch)))
