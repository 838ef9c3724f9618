"""Shrink and perturb: how a learner that knows a few episodes by heart begins to learn from many.

Ash & Adams 2020, "On Warm-Starting Neural Network Training", section 4:

    w <- keep w + (1 - keep) w_new        w_new: weights that a new model of the same shape begins with

A network that goes on from weights which fit little data generalises worse than a new one that sees all of the data,
and more data or more updates do not mend it. keep = 1 goes on from them, keep = 0 begins anew.

A learner that begins anew must be taught well before it acts by itself: dagger's expert acts in its stead, rft makes
more updates in its first iteration.

Left out: to do it again with every iteration's data, as the first data are the few.
"""

from __future__ import annotations

import torch

from agent.learner import Learner
from vla_model.config import VLAConfig
from vla_model.finetune import FineTuning
from vla_model.model import VLA


def check_keep(keep: float, fine_tuning: FineTuning, model: VLAConfig) -> None:
    """
    Raises:
        ValueError: `renew` cannot keep that share of that model's weights.
    """
    if not 0.0 <= keep <= 1.0:
        raise ValueError(f"the share of the weights to keep must lie within 0 and 1, got {keep}")
    if keep == 1.0:
        return
    if fine_tuning.mode != "full":
        raise ValueError(
            f"with fine-tuning mode {fine_tuning.mode!r} all weights must be kept: --algorithm.keep 1, not {keep}"
        )
    if model.pretrained or model.vision == "pretrained":
        raise ValueError(
            "the policy to begin with has pretrained weights, of which a new model has none, so all must be kept: "
            f"--algorithm.keep 1, not {keep}"
        )


@torch.no_grad()
def renew(learner: Learner[VLA], keep: float, *, seed: int) -> None:
    """Do that to every weight that is trained, and to the moving average.

    Args:
        learner: before its first update; of a whole model, without adapters.
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
    learner.average.load_state_dict(learner.model.state_dict())
