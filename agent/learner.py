"""The learner: the only place where an optimiser steps.

    batch -> T parts -> T threads, each with one core: loss and gradient of its part -> mean -> clip -> AdamW -> EMA

Two threads with a core each beat one operation split over two cores by far at these sizes. Threads share the weights;
each asks autograd for its own gradients, so nothing is accumulated concurrently and the sum has a fixed order.

The policy that acts is the exponential moving average of the weights (Polyak & Juditsky 1992), whose decay warms up.
Nothing here is random, so an update is a function of the state and the batch, and an interrupted run continues to the
same numbers.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, Self, TypeVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vla_model.precision import native_dtype


@dataclass(frozen=True, kw_only=True)
class LearnerConfig:
    """How to optimise."""

    batch_size: int = 128
    num_updates: int = 5000
    learning_rate: float = 1.0e-3
    warmup_updates: int = 200
    """Linear, followed by half a cosine down to `final_lr_share`."""
    final_lr_share: float = 0.02
    weight_decay: float = 0.02
    """On matrices only."""
    max_grad_norm: float = 1.0
    ema_decay: float = 0.998
    num_threads: int = 2
    """Parts of a batch that are computed side by side. Changes rounding, not meaning."""


class Splittable(Protocol):
    """A batch that can be computed in parts."""

    def part(self, index: int, count: int) -> Self:
        """The index-th of `count` parts."""
        ...


M = TypeVar("M", bound=nn.Module)
B = TypeVar("B", bound=Splittable)


class Learner(Generic[M]):
    """Weights, their moving average, and the optimiser's state."""

    def __init__(self, model: M, config: LearnerConfig) -> None:
        self.model = model
        self.average = copy.deepcopy(model).eval().requires_grad_(False)
        self.config = config
        self.num_updates_done = 0
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(
            [
                {"params": [p for p in self._parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
                {"params": [p for p in self._parameters if p.ndim < 2], "weight_decay": 0.0},
            ],
            lr=config.learning_rate,
            betas=(0.9, 0.98),
            fused=True,
        )
        self._dtype = native_dtype(next(model.parameters()).device)
        self._threads = ThreadPoolExecutor(
            config.num_threads, thread_name_prefix="learner", initializer=torch.set_num_threads, initargs=(1,)
        )

    def update(self, batch: B, loss: Callable[[M, B], tuple[Tensor, dict[str, Tensor]]]) -> dict[str, float]:
        """One step on the mean loss of the batch's parts.

        Returns:
            The loss's metrics, "learner/grad_norm" before clipping and "learner/learning_rate".

        Raises:
            FloatingPointError: the gradient is not finite; nothing was changed.
        """
        self.model.train()
        count = self.config.num_threads
        futures = [self._threads.submit(self._gradients, batch.part(i, count), loss) for i in range(count)]
        parts = [future.result() for future in futures]
        for parameter, *gradients in zip(self._parameters, *(gradients for gradients, _ in parts), strict=True):
            parameter.grad = torch.stack(gradients).mean(0) if count > 1 else gradients[0]
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, self.config.max_grad_norm)
        if not math.isfinite(norm):
            self._optimizer.zero_grad()
            raise FloatingPointError(f"the gradient of update {self.num_updates_done} has norm {float(norm)}")
        learning_rate = self.config.learning_rate * learning_rate_share(self.num_updates_done, self.config)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.step()
        self._optimizer.zero_grad()
        self.num_updates_done += 1
        self._move_average()
        metrics = {name: float(sum(m[name] for _, m in parts) / count) for name in parts[0][1]}
        return metrics | {"learner/grad_norm": float(norm), "learner/learning_rate": learning_rate}

    def save(self, folder: Path) -> None:
        """Write what resuming needs besides the policy: weights, moving average and optimiser, as safetensors."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"weights.{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in self.average.state_dict().items()}
        for index, state in self._optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
        tensors["num_updates_done"] = torch.tensor(self.num_updates_done)
        save_file({name: value.contiguous() for name, value in tensors.items()}, folder / STATE_FILE)

    def load(self, folder: Path) -> None:
        """What `save` wrote.

        Raises:
            ValueError: the file is missing or belongs to another model.
        """
        path = folder / STATE_FILE
        if not path.exists():
            raise ValueError(f"{folder} holds no {STATE_FILE}, so training cannot go on from it")
        tensors = load_file(path)
        self.num_updates_done = int(tensors.pop("num_updates_done"))
        self.model.load_state_dict(_with_prefix(tensors, "weights."))
        self.average.load_state_dict(_with_prefix(tensors, "average."))
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in _with_prefix(tensors, "optimizer.").items():
            index, key = name.split(".", 1)
            state.setdefault(int(index), {})[key] = value
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": state, "param_groups": groups})

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown()

    def _gradients(
        self, batch: B, loss: Callable[[M, B], tuple[Tensor, dict[str, Tensor]]]
    ) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        # Autocast's cache of converted weights is one for all threads: with it, what a thread finds there, and so the
        # order of its sums, would depend on the other's timing.
        with torch.autocast("cpu", self._dtype, self._dtype != torch.float32, cache_enabled=False):
            value, metrics = loss(self.model, batch)
        return torch.autograd.grad(value, self._parameters, materialize_grads=True), metrics

    @torch.no_grad()
    def _move_average(self) -> None:
        decay = min(self.config.ema_decay, (1 + self.num_updates_done) / (10 + self.num_updates_done))
        for average, weight in zip(self.average.parameters(), self.model.parameters(), strict=True):
            average.lerp_(weight, 1 - decay)


STATE_FILE = "learner.safetensors"


def learning_rate_share(update: int, config: LearnerConfig) -> float:
    """Share of the peak learning rate at that update: linear warm-up, then half a cosine."""
    if update < config.warmup_updates:
        return (update + 1) / config.warmup_updates
    progress = (update - config.warmup_updates) / max(config.num_updates - config.warmup_updates, 1)
    cosine = (1 + math.cos(math.pi * min(progress, 1.0))) / 2
    return config.final_lr_share + (1 - config.final_lr_share) * cosine


def _with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
