"""Shrink and perturb: partly reinitialise a learner that overfits a few episodes before it trains on many.

Ash & Adams 2020, "On Warm-Starting Neural Network Training", section 4:

    w <- keep w + (1 - keep) w_new        w_new: initial weights of a new model of the same shape

A network warm-started from weights fitted to little data generalises worse than a new one trained on all of the data,
and more data or more updates do not fix it. keep = 1 changes nothing, keep = 0 trains from scratch. The optimiser and
the learning rate's schedule are reset too.

When: at the beginning the new weights see few data again; at the end they see all of them, but no episodes are
collected with them. dagger, whose labels do not depend on which policy acts, does best at the end; rft, which learns
from its own successes, at the beginning.

Left out: repeating it in every iteration, as it costs thousands of updates each time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from annotated_types import Interval

from envs.errors import UserError
from vla_model.weights.config import FineTuning

if TYPE_CHECKING:
    from agent.learning.learner import Learner
    from vla_model.config import VLAConfig
    from vla_model.model import VLA


@dataclass(frozen=True, kw_only=True)
class ShrinkPerturbConfig:
    """Whether and when to shrink and perturb the learner's weights."""

    keep: Annotated[float, Interval(ge=0, le=1)] = 1.0
    """Share of the learned weights that is kept, the rest being initial weights. Below 1 only for a model from scratch
    of which all weights are trained."""
    iteration: Annotated[int, Interval(ge=1, le=100_000)] = 1
    """It is done before this iteration's updates; counted from 1 as in the log."""
    updates: Annotated[int, Interval(ge=0, le=1_000_000)] = 0
    """In that iteration, if more than in others: reinitialised weights need more updates before they can act."""


def check_shrink_perturb(
    config: ShrinkPerturbConfig, iterations: int, fine_tuning: FineTuning, model: VLAConfig
) -> None:
    """
    Raises:
        UserError: the run has no such iteration, or that model's weights cannot be reinitialised.
    """
    keep = config.keep
    if keep == 1.0:
        return
    if config.iteration > iterations:
        raise UserError(
            f"algorithm.shrink-perturb.iteration is {config.iteration}, expected iteration 1 to {iterations}"
        )
    if fine_tuning.mode != "full":
        raise UserError(
            f"with fine-tuning mode {fine_tuning.mode!r} all weights must be kept: "
            f"--algorithm.shrink-perturb.keep 1, not {keep}"
        )
    if model.pretrained or model.vision == "pretrained":
        raise UserError(
            "the initial policy has pretrained weights, which a new model does not have, so all must be kept: "
            f"--algorithm.shrink-perturb.keep 1, not {keep}"
        )


def scheduled_updates(config: ShrinkPerturbConfig, updates: int, iterations: int, iteration: int) -> int:
    """Updates of the learning-rate schedule that an iteration belongs to: the one before shrink and perturb, or the one
    after.

    Args:
        updates: of every other iteration.
        iteration: counted from 0.
    """
    if config.keep == 1.0:
        return iterations * updates
    before = config.iteration - 1
    if iteration < before:
        return before * updates
    return max(updates, config.updates) + (iterations - config.iteration) * updates


def shrink_and_perturb(learner: Learner[VLA], keep: float, *, seed: int) -> None:
    """Shrink and perturb every trained weight, the biases that balance experts, and the moving average, in place.

    Args:
        learner: of a whole model, without adapters.
        keep: share of the learned weights that is kept, 0 to 1.
    """
    import torch

    from vla_model.model import VLA

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        new = VLA(learner.model.config)
    with torch.no_grad():
        initial = dict(new.named_parameters())
        for name, weight in learner.model.named_parameters():
            if weight.requires_grad:
                weight.lerp_(initial[name].to(weight), 1.0 - keep)
        initial_buffers = dict(new.named_buffers())
        for name, value in learner.model.named_buffers():
            if value.is_floating_point():
                value.lerp_(initial_buffers[name].to(value), 1.0 - keep)
    learner.reset_optimizer()
