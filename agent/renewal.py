"""Shrink and perturb: how a learner that knows a few episodes by heart begins to learn from many.

Ash & Adams 2020, "On Warm-Starting Neural Network Training", section 4:

    w <- keep w + (1 - keep) w_new        w_new: weights that a new model of the same shape begins with

A network that goes on from weights which fit little data generalises worse than a new one that sees all of the data,
and more data or more updates do not mend it. keep = 1 goes on from them, keep = 0 begins anew.

Left out: to do it again with every iteration's data, as the first data are the few.
"""

from __future__ import annotations

import torch

from agent.learner import Learner
from vla_model.model import VLA


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
