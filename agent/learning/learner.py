"""The learner: the only place where an optimiser steps.

    batch -> gradient (agent/learning/gradients.py) -> clip, the value head separately -> AdamW or Muon -> EMA

The policy that acts is the exponential moving average of the weights (Polyak & Juditsky 1992), whose decay warms up.
An update is a deterministic function of the state and the batch, so an interrupted run continues identically. Several
processes each take the same step: they hold the same weights and the same gradient.
"""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path
from typing import Generic

import torch
from torch import Tensor, nn

from agent.learning.captured import Captured, can_be_captured
from agent.learning.config import AVERAGE_DECAY, LearnerConfig, learning_rate_share
from agent.learning.data_parallel import DataParallel
from agent.learning.gradients import Loss, M, Splittable, Threads
from agent.learning.optimizers import Optimizers
from envs.errors import UserError
from vla_model.files.weight_files import load_tensors, not_finite, save_tensors
from vla_model.heads.moe import balance_experts, forget_choices


class Learner(Generic[M]):
    """Weights, their moving average, and the optimiser's state."""

    def __init__(self, model: M, config: LearnerConfig, *, repeats: bool = False) -> None:
        """
        Args:
            repeats: whether many updates have the same loss, so that capturing its gradient pays.
        """
        self.model = model
        self.average = copy.deepcopy(model).eval().requires_grad_(False)
        self.config = config
        self.num_updates_done = 0
        self._progress = 0.0
        self._optimizers = Optimizers(model, config)
        parameters = [*self._optimizers.others, *self._optimizers.values]
        captures = repeats and config.capture and self.device.type == "cuda" and can_be_captured(model)
        self._gradients: Threads[M] | DataParallel[M] | Captured[M]
        if config.num_processes > 1:
            self._gradients = DataParallel(model, parameters)
        elif captures:
            self._gradients = Captured(model, parameters)
        else:
            self._gradients = Threads(model, parameters, config.num_parts)

    def update(self, batch: Splittable, loss: Loss[M]) -> dict[str, float]:
        """One step on the loss of the batch.

        Args:
            batch: with several processes, this one's share of it: batch.part(rank, num_processes).

        Returns:
            The loss's metrics, the gradient norms before clipping "learner/grad_norm" and, of a value head,
            "learner/value_grad_norm", and "learner/learning_rate".

        Raises:
            FloatingPointError: the gradient or a metric is not finite; nothing was changed.
        """
        self.model.train()
        metrics = self._gradients(batch, loss)
        metrics["learner/grad_norm"] = self._clip(self._optimizers.others)
        if self._optimizers.values:
            metrics["learner/value_grad_norm"] = self._clip(self._optimizers.values)
        broken = [f"{name} is {value}" for name, value in metrics.items() if not math.isfinite(value)]
        if broken:
            self._optimizers.zero_grad()
            forget_choices(self.model)
            raise FloatingPointError(f"in update {self.num_updates_done} {', '.join(broken)}")
        share = learning_rate_share(self.num_updates_done, self.config, self._progress)
        learning_rate = self.config.learning_rate * share
        decays = metrics["learner/grad_norm"] > 0.0  # in ppo's warm-up only the value head may change
        self._optimizers.step(learning_rate, decays=decays, each=self._gradients.each)
        balance_experts(self.model, self._gradients.summed)
        self.num_updates_done += 1
        self._move_average()
        return metrics | {"learner/learning_rate": learning_rate}

    def schedule(self, *, num_updates: int | None = None, progress: float = 0.0) -> None:
        """Set the position in the run, from which the learning rate follows.

        Args:
            num_updates: of the whole schedule, if known.
            progress: share of the run that is done, if not.
        """
        self.config = replace(self.config, num_updates=num_updates)
        self._progress = progress

    @property
    def device(self) -> torch.device:
        """Of the model, where batches must be."""
        return next(self.model.parameters()).device

    def save(self, folder: Path) -> None:
        """Write what resuming needs besides the policy: weights, moving average and optimiser state, as safetensors."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = self._state()
        tensors["num_updates_done"] = torch.tensor(self.num_updates_done)
        save_tensors(folder / STATE_FILE, tensors)

    def check_finite(self) -> None:
        """
        Raises:
            FloatingPointError: a weight, its average or the optimiser's state is not; it must not act or be saved.
        """
        if broken := not_finite(self._state()):
            others = f" and {len(broken) - 1} others" if len(broken) > 1 else ""
            raise FloatingPointError(
                f"after update {self.num_updates_done} {broken[0]}{others} is not finite, so it is not saved; the "
                "earlier checkpoints are unchanged. A smaller learner.learning-rate may help"
            )

    def _state(self) -> dict[str, Tensor]:
        tensors = {f"weights.{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in self.average.state_dict().items()}
        return tensors | self._optimizers.state()

    def load(self, folder: Path) -> None:
        """Restore what `save` wrote.

        Raises:
            UserError: the file is missing, damaged, of another model, or has numbers that are not finite.
        """
        path = folder / STATE_FILE
        if not path.exists():
            raise UserError(
                f"{folder} holds no {STATE_FILE}, so training cannot go on from it; delete it to go on from the one "
                "before"
            )
        tensors = load_tensors(path)
        try:
            self.num_updates_done = int(tensors["num_updates_done"])
            self.model.load_state_dict(_with_prefix(tensors, "weights."))
            self.average.load_state_dict(_with_prefix(tensors, "average."))
            self._optimizers.load(tensors)
        except (KeyError, RuntimeError) as error:
            raise UserError(f"{path} is not of this training's model: {error}; begin a run in another --out") from error

    def reset_optimizer(self) -> None:
        """Keep the weights; reset the optimiser's moments, the moving average and the schedule."""
        self.num_updates_done = 0
        self._optimizers.reset()
        self.average.load_state_dict(self.model.state_dict())

    def close(self) -> None:
        """Free the threads, processes or graphs that compute gradients."""
        self._gradients.close()

    def _clip(self, parameters: list[nn.Parameter]) -> float:
        """Clip in place; returns the norm before."""
        return float(torch.nn.utils.clip_grad_norm_(parameters, self.config.max_grad_norm, foreach=True))

    @torch.no_grad()
    def _move_average(self) -> None:
        most = AVERAGE_DECAY if self.config.ema_decay is None else self.config.ema_decay
        decay = min(most, (1 + self.num_updates_done) / (10 + self.num_updates_done))
        torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), 1 - decay)
        for average, value in zip(self.average.buffers(), self.model.buffers(), strict=True):
            average.copy_(value)


STATE_FILE = "learner.safetensors"


def _with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
