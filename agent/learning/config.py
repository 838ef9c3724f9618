"""Settings of the optimiser."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Literal, get_args

from annotated_types import Interval

from agent.runs.checks import HOW, none_stands_for
from envs.errors import UserError

AVERAGE_DECAY = 0.998
"""Of the weights' moving average, unless the config or the algorithm says otherwise."""


OptimizerName = Literal["adamw", "muon"]


@dataclass(frozen=True, kw_only=True)
class LearnerConfig:
    """How to optimise."""

    batch_size: Annotated[int, Interval(ge=1, le=100_000)] = 128
    num_updates: Annotated[int, Interval(ge=1, le=10_000_000)] | None = field(default=None, metadata=none_stands_for())
    """Of a run on demonstrations. In fine-tuning it follows from the iterations and is left out."""
    learning_rate: Annotated[float, Interval(gt=0, le=1)] = 1.0e-3
    optimizer: OptimizerName = "adamw"
    """muon steps the matrices between the first and the last layers, adamw all others (agent/learning/muon.py)."""
    muon_rate: Annotated[float, Interval(gt=0, le=1_000)] = 3.0
    """Muon's learning rate, as a multiple of `learning_rate`."""
    warmup_updates: Annotated[int, Interval(ge=0, le=10_000_000)] = 200
    """Linear, followed by half a cosine down to `final_lr_share` at the end of the run; for ppo and grpo, whose number
    of updates is not known beforehand, the cosine follows the iterations."""
    final_lr_share: Annotated[float, Interval(ge=0, le=1)] = 0.02
    value_rate: Annotated[float, Interval(gt=0, le=1_000)] = 1.0
    """The value head's learning rate, as a multiple of `learning_rate`."""
    weight_decay: Annotated[float, Interval(ge=0, le=1)] = 0.02
    """On matrices only."""
    max_grad_norm: Annotated[float, Interval(gt=0, le=1_000_000)] = 1.0
    ema_decay: Annotated[float, Interval(ge=0, lt=1)] | None = field(
        default=None, metadata=none_stands_for(AVERAGE_DECAY)
    )
    """Of the moving average of the weights, which is the policy. None is AVERAGE_DECAY, and 0 in ppo and grpo, whose
    ratios need the learner's weights to act."""
    num_parts: Annotated[int, Interval(ge=1, le=1_000)] = field(default=2, metadata=HOW)
    """Interleaved parts of a batch that one process computes in parallel, a thread each, unless it captures the
    gradient. Changes rounding only."""
    num_processes: Annotated[int, Interval(ge=1, le=1_000)] = field(default=1, metadata=HOW)
    """That share a batch, each on a GPU where Ray has any, else on a core. Changes rounding only. 1 stays in this
    process."""
    capture: bool = field(default=True, metadata=HOW)
    """On one GPU, compute a small model's gradient by a CUDA graph, where all updates have the same loss
    (agent/learning/captured.py). Changes rounding only."""

    def check(self) -> None:
        """
        Raises:
            UserError: there is no such optimiser, a part or a process would have no sample, or warm-up is longer than
                the run.
        """
        if self.optimizer not in get_args(OptimizerName):
            raise UserError(f"learner.optimizer is {self.optimizer!r}; there are: {', '.join(get_args(OptimizerName))}")
        if self.num_parts > self.batch_size:
            raise UserError(
                f"a batch of {self.batch_size} cannot be computed in {self.num_parts} parts of at least one sample; "
                "lower learner.num-parts"
            )
        if self.batch_size % self.num_processes:
            raise UserError(
                f"learner.num-processes is {self.num_processes}, expected a divisor of the batch, "
                f"{self.batch_size} samples"
            )
        if self.num_updates is not None:
            self.check_warmup(self.num_updates)

    def check_warmup(self, num_updates: int) -> None:
        """
        Args:
            num_updates: of the schedule.

        Raises:
            UserError: warm-up is longer than the schedule.
        """
        if self.warmup_updates > num_updates:
            raise UserError(
                f"the learning rate rises for learner.warmup-updates, {self.warmup_updates}, and the run makes only "
                f"{num_updates} updates; warm up for fewer, or make more"
            )


def learning_rate_share(update: int, config: LearnerConfig, progress: float = 0.0) -> float:
    """Share of the peak learning rate at that update: linear warm-up, then half a cosine.

    Args:
        update: counted from 0.
        progress: share of the run that is done, where config.num_updates is None.
    """
    if update < config.warmup_updates:
        return (update + 1) / config.warmup_updates
    if config.num_updates is not None:
        progress = (update - config.warmup_updates) / max(config.num_updates - config.warmup_updates, 1)
    cosine = (1 + math.cos(math.pi * min(progress, 1.0))) / 2
    return config.final_lr_share + (1 - config.final_lr_share) * cosine
