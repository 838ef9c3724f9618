"""Shrink and perturb: how a learner that overfits a few episodes begins to learn from many.

Ash & Adams 2020, "On Warm-Starting Neural Network Training", section 4:

    w <- keep w + (1 - keep) w_new        w_new: weights that a new model of the same shape begins with

A network that goes on from weights which fit little data generalises worse than a new one that sees all of the data,
and more data or more updates do not mend it. keep = 1 goes on from them, keep = 0 begins anew. The optimiser and the
learning rate's schedule begin anew with it.

When: while data are still gathered, the renewed learner's first data are few again; at the end it sees all of them, but
nothing is gathered by it. dagger, whose labels don't depend on who acts, does best at the end; rft, which learns from
what it can do itself, at the beginning.

Left out: to do it again with every iteration's data, as a renewed learner costs thousands of updates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Interval

from agent.learning.learner import Learner
from envs.errors import UserError
from vla_model.config import VLAConfig
from vla_model.model import VLA
from vla_model.weights.finetune import FineTuning


@dataclass(frozen=True, kw_only=True)
class RenewalConfig:
    """Whether and when to renew the learner's weights."""

    keep: Annotated[float, Interval(ge=0, le=1)] = 1.0
    """Share of its weights that the learner goes on with, the rest being those of a new model. Below 1 only for a model
    from scratch that is trained whole."""
    iteration: Annotated[int, Interval(ge=1, le=100_000)] = 1
    """Before whose updates they are renewed, counted from 1 as in the log."""
    updates: Annotated[int, Interval(ge=0, le=1_000_000)] = 0
    """In that iteration, if these are more than in others: a new model must be taught well before it acts."""


def check_renewal(config: RenewalConfig, iterations: int, fine_tuning: FineTuning, model: VLAConfig) -> None:
    """
    Raises:
        UserError: it would never come to it, or `renew` cannot keep that share of that model's weights.
    """
    keep = config.keep
    if keep == 1.0:
        return
    if config.iteration > iterations:
        raise UserError(f"the weights are to be renewed in iteration {config.iteration}, expected 1 to {iterations}")
    if fine_tuning.mode != "full":
        raise UserError(
            f"with fine-tuning mode {fine_tuning.mode!r} all weights must be kept: "
            f"--algorithm.renewal.keep 1, not {keep}"
        )
    if model.pretrained or model.vision == "pretrained":
        raise UserError(
            "the policy to begin with has pretrained weights, of which a new model has none, so all must be kept: "
            f"--algorithm.renewal.keep 1, not {keep}"
        )


def scheduled_updates(config: RenewalConfig, updates: int, iterations: int, iteration: int) -> int:
    """How many updates the learning rate's schedule has that an iteration is part of: those before the renewal, or
    those from it on.

    Args:
        config: of the renewal.
        updates: of every other iteration.
        iterations: of the run.
        iteration: counted from 0.
    """
    if config.keep == 1.0:
        return iterations * updates
    before = config.iteration - 1
    if iteration < before:
        return before * updates
    return max(updates, config.updates) + (iterations - config.iteration) * updates


@torch.no_grad()
def renew(learner: Learner[VLA], keep: float, *, seed: int) -> None:
    """Do that to every weight that is trained, to the biases that balance experts, and to the moving average.

    Args:
        learner: of a whole model, without adapters.
        keep: share of the weights that it has.
        seed: of the new ones.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        new = VLA(learner.model.config)
    known = dict(new.named_parameters())
    for name, weight in learner.model.named_parameters():
        if weight.requires_grad:
            weight.lerp_(known[name].to(weight), 1.0 - keep)
    fresh = dict(new.named_buffers())
    for name, value in learner.model.named_buffers():
        if value.is_floating_point():
            value.lerp_(fresh[name].to(value), 1.0 - keep)
    learner.begin_anew()
