"""The gradient of a batch's loss, computed in parts.

    Threads        batch -> P parts -> P threads, each with one core -> mean
    DataParallel   each of n processes: its share of the batch -> mean over processes (agent/learning/data_parallel.py)
    Captured       the whole batch, replayed on a GPU (agent/learning/captured.py)

Row i of a batch is in part i % P, and in the share of process i % n. A loss that takes its means over the batch and not
over a part (vla_model/numerics/means.py) has the same value and gradient for any number of parts, but for the order of
sums. Each leaves the gradient in every parameter's .grad, zeros where the loss does not depend on it, and returns the
loss's metrics. A batch with fewer rows than parts has a part for each row.

At these sizes two threads with a core each are much faster than one operation split over two cores. Threads share the
weights; each computes its own gradients, so nothing is accumulated concurrently and the sum has a fixed order. No
operation is split meanwhile, the optimiser's neither: OpenMP's threads wait for the next operation by spinning, and
would take the cores from the parts, and from any other process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from threading import Barrier, BrokenBarrierError
from typing import Any, Generic, Protocol, Self, TypeVar

import torch
from torch import Tensor, nn

from vla_model.numerics.means import gathering
from vla_model.numerics.precision import native_dtype
from vla_model.numerics.tensors import tensors_of


class Splittable(Protocol):
    """A batch that can be computed in parts."""

    def part(self, index: int, count: int) -> Self:
        """The index-th of `count` interleaved parts."""
        ...


M = TypeVar("M", bound=nn.Module)
Loss = Callable[[M, Any], tuple[Tensor, dict[str, Tensor]]]
"""(model, Splittable) -> the scalar to differentiate, and scalar metrics."""


class Objective(nn.Module, Generic[M]):
    """A loss as the output of a module, in the number format of the model's device."""

    def __init__(self, model: M) -> None:
        super().__init__()
        self.model = model
        self._device = next(model.parameters()).device
        self._dtype = native_dtype(self._device)

    def forward(self, loss: Loss[M], part: Splittable) -> tuple[Tensor, dict[str, Tensor]]:
        # Threads would share autocast's cache of converted weights, and the order of sums would depend on timing.
        with torch.autocast(self._device.type, self._dtype, self._dtype != torch.float32, cache_enabled=False):
            return loss(self.model, part)


Gradients = tuple[Sequence[Tensor], dict[str, Tensor]]
"""One per parameter, and the loss's metrics."""


def gradients_of(
    objective: Objective[M], loss: Loss[M], part: Splittable, parameters: Sequence[nn.Parameter]
) -> Gradients:
    """The gradients of one part's loss, and its metrics."""
    value, metrics = objective(loss, part)
    return torch.autograd.grad(value, parameters, materialize_grads=True), metrics


def mean_over_parts(parts: Sequence[Gradients]) -> Gradients:
    """Gradients and metrics averaged over parts."""
    first, *others = (gradients for gradients, _ in parts)
    # A convolution's gradient may have a memory format that the optimiser refuses.
    gradients = [gradient.contiguous() for gradient in first]
    for more in others:  # not in place: gradients may share memory
        gradients = list(torch._foreach_add(gradients, list(more)))
    if others:
        gradients = list(torch._foreach_div(gradients, len(parts)))
    return gradients, {name: torch.stack([metrics[name] for _, metrics in parts]).mean(0) for name in parts[0][1]}


class Threads(Generic[M]):
    """Gradients computed in threads of this process, in which operations have one thread until `close`."""

    def __init__(self, model: M, parameters: Sequence[nn.Parameter], num_parts: int) -> None:
        self._objective = Objective(model)
        self._parameters = parameters
        self._num_parts = num_parts
        self._before = torch.get_num_threads()
        # set_num_threads affects parts of the whole process and of the calling thread alone, so all must call it. Start
        # all now: a policy that acts here must round alike before and after the first update.
        torch.set_num_threads(1)
        self._threads = ThreadPoolExecutor(
            num_parts, thread_name_prefix="learner", initializer=torch.set_num_threads, initargs=(1,)
        )
        ready = Barrier(num_parts, timeout=60.0)
        wait([self._threads.submit(ready.wait) for _ in range(num_parts)])

    def __call__(self, batch: Splittable, loss: Loss[M]) -> dict[str, float]:
        count = min(self._num_parts, num_rows(batch))
        exchange = _Exchange(count)
        futures = [self._threads.submit(self._part, batch, loss, exchange, i) for i in range(count)]
        errors = [error for future in futures if (error := future.exception()) is not None]
        if errors:  # raise that of the thread that failed, not of those that waited for it
            raise next((error for error in errors if not isinstance(error, BrokenBarrierError)), errors[0])
        gradients, metrics = mean_over_parts([future.result() for future in futures])
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient
        return {name: float(value) for name, value in metrics.items()}

    def _part(self, batch: Splittable, loss: Loss[M], exchange: _Exchange, index: int) -> Gradients:
        try:
            part = batch.part(index, exchange.count)
            with gathering(partial(exchange.gather, index)):
                return gradients_of(self._objective, loss, part, self._parameters)
        except BaseException:
            exchange.abort()
            raise

    def summed(self, counts: Tensor) -> Tensor:
        """What was counted in all processes: there is one."""
        return counts

    def each(self, function: Callable[[Tensor], Tensor], tensors: Iterable[Tensor]) -> Iterable[Tensor]:
        """As `map`, in the threads."""
        return self._threads.map(function, tensors)

    def close(self) -> None:
        """End the threads, and let operations be split again."""
        self._threads.shutdown()
        torch.set_num_threads(self._before)


class _Exchange:
    """All-gather of a tensor among threads."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._barrier = Barrier(count)
        self._tensors: dict[int, Tensor] = {}

    def gather(self, index: int, value: Tensor) -> Tensor:
        """See vla_model/numerics/means.py."""
        self._tensors[index] = value
        self._barrier.wait()
        found = torch.stack([self._tensors[i] for i in range(self.count)])
        self._barrier.wait()  # no tensor is replaced before all threads have read it
        return found

    def abort(self) -> None:
        """Unblock the others when a thread has failed."""
        self._barrier.abort()


def num_rows(batch: Splittable) -> int:
    """Samples of a batch."""
    return len(next(tensors_of(batch)))
