"""A function of a batch's rows as CUDA graphs, for batches of any size: a graph for each power of two of rows.

    record     the rows, repeated up to the graph's size -> [function] into a CUDA graph
    replay     copy the next rows over the first ones; launch the graph; its first rows are the result

A small model's decision is bound by the launches of its kernels, which a graph makes at once. The function must do the
same whatever the values: no control flow by a tensor's values, nothing from or to the host. Rows must not affect each
other. Graphs share their memory, so a result is valid until the next call.

On a CPU the function is called in place of a graph, on the same buffers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from vla_model.numerics.tensors import each_tensor, tensors_of

X = TypeVar("X")
K = TypeVar("K")
Y = TypeVar("Y")

_WARM_UP = 3
"""Runs before a capture, as torch's documentation asks: lazy initialisation must have happened."""


class CaptureError(RuntimeError):
    """A function that cannot be captured as a CUDA graph."""


@dataclass(kw_only=True)
class _Recorded(Generic[X, K, Y]):
    """A graph's buffers."""

    rows: X
    kept: K
    kept_from: K
    """What `kept` was last copied from."""
    launch: Callable[[], object]
    result: Y


class RowGraphs(Generic[X, K, Y]):
    """Calls a function of rows, by graphs on a GPU."""

    def __init__(self, function: Callable[[X, K], Y]) -> None:
        """
        Args:
            function: of two batches of as many rows (nested dataclasses, dictionaries and tuples of tensors [n, ...]).
        """
        self._function = function
        self._recorded: dict[int, _Recorded[X, K, Y]] = {}
        self._pool: Any = None

    def __call__(self, rows: X, kept: K) -> Y:
        """function(rows, kept) in its first n rows; more rows follow, which mean nothing.

        Args:
            rows: n of them.
            kept: their second batch; it is not copied again while it is the same object, so it must not be changed.

        Raises:
            CaptureError: the function waits for the host, or a graph lacks memory.
        """
        num_rows = len(next(tensors_of(rows)))
        size = 1 << (num_rows - 1).bit_length()
        recorded = self._recorded.get(size)
        if recorded is None:
            recorded = self._recorded[size] = self._record(rows, kept, size)
        _write(rows, recorded.rows)
        if kept is not recorded.kept_from:
            _write(kept, recorded.kept)
            recorded.kept_from = kept
        recorded.launch()
        return recorded.result

    def _record(self, rows: X, kept: K, size: int) -> _Recorded[X, K, Y]:
        padded, padded_kept = _repeated(rows, size), _repeated(kept, size)
        if not next(tensors_of(rows)).is_cuda:
            recorded = _Recorded(
                rows=padded,
                kept=padded_kept,
                kept_from=kept,
                launch=lambda: None,
                result=self._function(padded, padded_kept),
            )
            recorded.launch = lambda: setattr(recorded, "result", self._function(padded, padded_kept))
            return recorded
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(_WARM_UP):
                self._function(padded, padded_kept)
        torch.cuda.current_stream().wait_stream(aside)
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        try:
            # Only this thread's calls are captured: another may draw or simulate on the same GPU. The first context
            # sets the stream back, which a capture that fails leaves changed.
            capture = torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local")
            with torch.cuda.stream(torch.cuda.current_stream()), capture:
                result = self._function(padded, padded_kept)
        except RuntimeError as error:
            raise CaptureError(f"a batch of {size} rows cannot be captured as a CUDA graph: {error}") from error
        return _Recorded(rows=padded, kept=padded_kept, kept_from=kept, launch=graph.replay, result=result)


def _repeated(batch: X, size: int) -> X:
    """The batch with its last row repeated up to `size` rows."""

    def of(tensor: Tensor) -> Tensor:
        return tensor[torch.arange(size, device=tensor.device).clamp(max=len(tensor) - 1)]

    return each_tensor(batch, of)


def _write(batch: object, buffers: object) -> None:
    """Copy rows over the first of the buffers'."""
    for tensor, buffer in zip(tensors_of(batch), tensors_of(buffers), strict=True):
        buffer[: len(tensor)].copy_(tensor)
