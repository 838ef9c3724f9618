"""The gradient of a batch on a GPU, by a CUDA graph captured once and replayed.

    capture    batch -> [loss -> gradient] into a CUDA graph; the batch is one part, as two would be more launches
    replay     copy the next batch into the captured batch's tensors; launch the graph

Small networks are bound by kernel launches: a graph launches all kernels at once (docs/results/gpu.md: six times the
updates). It repeats exactly what was captured, so the loss must be the same function of the batch each time, without
control flow that depends on a tensor's values. A batch of another shape or another loss is captured anew.

Left out: capturing the optimiser's step too, AdamW's or Muon's. A gradient that is not finite has to be refused before
it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic

import torch
from torch import Tensor, nn

from agent.learning.gradients import Gradients, Loss, M, Objective, Splittable, gradients_of, mean_over_parts
from vla_model.heads.moe import balances
from vla_model.numerics.tensors import tensors_of

_WARM_UP = 3
"""Runs before capture, as torch's documentation asks: lazy initialisation must have happened."""
_MOST_GRAPHS = 4
"""One for each shape of batch; one more replaces the oldest."""

_MOST_CAPTURED = 50_000_000
"""Parameters of the largest model that is captured: a larger one is not bound by launches, and encodes an instruction
that samples share once, which a graph cannot."""


@dataclass(frozen=True, kw_only=True)
class _Recorded:
    """A graph, and the tensors that it reads and writes."""

    graph: torch.cuda.CUDAGraph
    batch: Splittable
    gradients: Sequence[Tensor]
    names: list[str]
    metrics: Tensor
    """float32 [names]"""


def can_be_captured(model: nn.Module) -> bool:
    """Whether the model is small and does not balance its experts, which counts choices on the host."""
    return sum(p.numel() for p in model.parameters()) <= _MOST_CAPTURED and not balances(model)


class Captured(Generic[M]):
    """Gradients replayed on this process's GPU; called like those of agent/learning/gradients.py."""

    def __init__(self, model: M, parameters: Sequence[nn.Parameter]) -> None:
        self._objective = Objective(model)
        self._parameters = parameters
        self._loss: Loss[M] | None = None
        self._recorded: dict[tuple[Any, ...], _Recorded] = {}

    def __call__(self, batch: Splittable, loss: Loss[M]) -> dict[str, float]:
        if loss is not self._loss:
            self._recorded.clear()
            self._loss = loss
        shapes = tuple((tuple(tensor.shape), tensor.dtype) for tensor in tensors_of(batch))
        recorded = self._recorded.get(shapes)
        if recorded is None:
            if len(self._recorded) == _MOST_GRAPHS:
                del self._recorded[next(iter(self._recorded))]
            recorded = self._recorded[shapes] = self._record(copy.deepcopy(batch), loss)  # replays overwrite it
        for old, new in zip(tensors_of(recorded.batch), tensors_of(batch), strict=True):
            old.copy_(new)
        recorded.graph.replay()
        for parameter, gradient in zip(self._parameters, recorded.gradients, strict=True):
            parameter.grad = gradient
        return dict(zip(recorded.names, recorded.metrics.tolist(), strict=True))

    def summed(self, counts: Tensor) -> Tensor:
        """Counts summed over processes, of which there is one."""
        return counts

    def each(self, function: Callable[[Tensor], Tensor], tensors: Iterable[Tensor]) -> Iterable[Tensor]:
        """As `map`."""
        return map(function, tensors)

    def close(self) -> None:
        """Free the graphs."""
        self._recorded.clear()

    def _record(self, batch: Splittable, loss: Loss[M]) -> _Recorded:
        """
        Raises:
            RuntimeError: the loss synchronises with the host, which a graph cannot.
        """
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(_WARM_UP):
                self._gradients(batch, loss)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                gradients, metrics = self._gradients(batch, loss)
                values = torch.stack(list(metrics.values()))
        except RuntimeError as error:
            raise RuntimeError(
                "this model's gradient cannot be captured as a CUDA graph; --learner.no-capture computes it without"
            ) from error
        return _Recorded(graph=graph, batch=batch, gradients=gradients, names=list(metrics), metrics=values)

    def _gradients(self, batch: Splittable, loss: Loss[M]) -> Gradients:
        return mean_over_parts([gradients_of(self._objective, loss, batch, self._parameters)])
