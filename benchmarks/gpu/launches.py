"""Counts what a piece of code launches: Warp kernels, graphs of them, and torch operations.

    with counted() as counts:
        world.step_chunk(actions)
    counts.own  # Warp kernels besides MuJoCo Warp's, and torch operations that compute or copy

A small kernel takes a GPU 2 to 4 microseconds, and its launch from Python 5 to 50, so where worlds are few, the number
of launches is the time. It is the same on Warp's CPU device and torch's, so it is known without a GPU.

A graph counts with the kernels that were recorded in it, if it was recorded while counting; a loop in it counts once.
Operations that only make a view of a tensor, or allocate one, are not counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
import warp as wp
from torch.utils._python_dispatch import TorchDispatchMode

_SIMULATOR = "mujoco_warp"
_ALLOCATES = (
    "aten.detach_",
    "aten.empty",
    "aten.new_empty",
    "aten.resize_",
    "aten.lift_fresh",
    "aten.set_",
    "prim.device",
)


@dataclass
class Counts:
    """What ran."""

    simulator: int = 0
    """Kernels of MuJoCo Warp: physics, kinematics and rendering."""
    kernels: Counter[str] = field(default_factory=Counter)
    """Other Warp kernels, by name."""
    graphs: int = 0
    """Graphs launched; their kernels are counted above."""
    torch: Counter[str] = field(default_factory=Counter)
    """Torch operations by name."""

    @property
    def own(self) -> int:
        """All but the simulator's."""
        return self.kernels.total() + self.torch.total()

    def add(self, module: str, kernel: str) -> None:
        """Count one kernel."""
        if module.startswith(_SIMULATOR):
            self.simulator += 1
        else:
            self.kernels[kernel] += 1

    def __iadd__(self, other: Counts) -> Counts:
        self.simulator += other.simulator
        self.kernels += other.kernels
        return self


class _TorchOperations(TorchDispatchMode):
    def __init__(self, counts: Counts) -> None:
        super().__init__()
        self._counts = counts

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        result = func(*args, **(kwargs or {}))
        if not str(func).startswith(_ALLOCATES) and not (func.is_view and _shares_memory(result, args)):
            self._counts.torch[str(func)] += 1
        return result


def _shares_memory(result: Any, args: Any) -> bool:
    """Whether an operation that may make a view did; `to` and `reshape` make one or a copy."""
    return not isinstance(result, torch.Tensor) or result.untyped_storage().data_ptr() in {
        arg.untyped_storage().data_ptr() for arg in args if isinstance(arg, torch.Tensor)
    }


_recorded: dict[int, Counts] = {}
"""Kernels of each graph that was recorded while counting, by the graph's id."""


@contextmanager
def counted() -> Generator[Counts]:
    """Counts what this thread launches in this context. Not to be nested."""
    counts, recording = Counts(), list[Counts]()

    def launch(original: Callable[..., Any]) -> Callable[..., Any]:
        def counting(kernel: Any, *args: Any, **kwargs: Any) -> Any:
            (recording[-1] if recording else counts).add(kernel.func.__module__, kernel.key)
            return original(kernel, *args, **kwargs)

        return counting

    def begin(*args: Any, **kwargs: Any) -> Any:
        recording.append(Counts())
        return capture_begin(*args, **kwargs)

    def end(*args: Any, **kwargs: Any) -> Any:
        graph = capture_end(*args, **kwargs)
        _recorded[id(graph)] = recording.pop()
        return graph

    def replay(graph: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal counts
        counts.graphs += 1
        counts += _recorded.get(id(graph), Counts())
        return capture_launch(graph, *args, **kwargs)

    capture_begin, capture_end, capture_launch = wp.capture_begin, wp.capture_end, wp.capture_launch
    patches = {"capture_begin": begin, "capture_end": end, "capture_launch": replay}
    patches |= {name: launch(getattr(wp, name)) for name in ("launch", "launch_tiled")}
    with mock.patch.multiple(wp, **patches), _TorchOperations(counts):
        yield counts
