"""The clipped surrogate that ppo and grpo share (Schulman et al. 2017, "Proximal Policy Optimization", equation 7).

    r = exp(log p(a) - log p_old(a))                                     per executed action, float32
    L = -mean(w min(r A, clip(r, 1 - low, 1 + high) A)) - w_ent mean(H) + w_anchor mean(KL)

    clip     low and high may differ: a higher ceiling leaves room for rare actions (Yu et al. 2025, "DAPO")
    KL       to the policy that the run began with, by exp(d) - 1 - d with d = log p_first - log p (Schulman 2020,
             "Approximating KL divergence", k3); 0 weight spares the pass through that policy

An action's probability is the product over its dimensions. Neither a chunk's product over its actions (ratios of 8 x 7
factors leave the clip at once) nor a ratio per dimension (it ignores that they act together) is used.

The guards that are logged: "policy/kl", the mean of r - 1 - log r, how far the policy has moved from the one that
acted; "policy/clip_fraction", the share of actions whose ratio lies outside the clip; "policy/entropy"; of the
router, its entropy as a share of the largest possible one, and the experts that got less than 1 % of the choices.

Shape letters: B decisions, k executed actions of a chunk, K chunk length, E experts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Interval, Lt
from torch import Tensor
from torch.nn import functional as F

from agent.algorithms.decisions import Decisions
from envs.errors import UserError
from vla_model.model import VLA, VLAOutput
from vla_model.numerics.means import mean, of_all_parts


@dataclass(frozen=True, kw_only=True)
class SurrogateConfig:
    """How far and how often a rollout's actions move the policy."""

    epochs: Annotated[int, Interval(ge=1, le=1_000)] = 3
    """Passes over a rollout."""
    clip_low: Annotated[float, Interval(gt=0, lt=1)] = 0.2
    clip_high: Annotated[float, Interval(gt=0, le=1_000_000)] = 0.2
    max_kl: Annotated[float, Interval(gt=0, le=1_000_000)] = 0.05
    """The rollout is done with after an epoch whose mean "policy/kl" is above."""
    min_log_scale: Annotated[float, Lt(2)] = -2.0
    """VLAConfig.min_log_scale from the first iteration on; the largest is 2. Cloned policies are so sure of some
    numbers (of a gripper that opens or closes) that nothing else is tried there, and that any update moves the ratios
    out of the clip."""
    noise_correlation: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Of an action's noise with that of the action before it, below 1 (vla_model/heads/noise.py)."""
    entropy_weight: Annotated[float, Interval(ge=0, le=1_000_000)] = 0.0
    """w_ent"""
    anchor_weight: Annotated[float, Interval(ge=0, le=1_000_000)] = 0.0
    """w_anchor"""


def predict(model: VLA, batch: Decisions) -> VLAOutput:
    """The model in float32, whatever it is else computed in; the experts are looked at where actions were executed.

    Raises:
        UserError: its action distribution has no log-probabilities.
    """
    executed = batch.weight > 0  # [B, k]
    mask = F.pad(executed, (0, model.config.chunk_length - executed.shape[1]))  # [B, K]
    with torch.autocast(batch.log_prob.device.type, enabled=False):
        output = model(batch.inputs, mask=mask)
    if not output.actions.has_log_prob:
        raise UserError(
            f"{type(output.actions).__name__} has no log-probabilities, which ppo and grpo need; rft and dagger do not"
        )
    return output


def surrogate_loss(output: VLAOutput, batch: Decisions, config: SurrogateConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss above, and its guards for the log."""
    mean_of = executed_mean(batch)
    executed = batch.weight > 0
    log_ratio = torch.where(executed, output.actions.log_prob(batch.drawn) - batch.log_prob, 0.0)  # [B, k]
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1 - config.clip_low, 1 + config.clip_high)
    gain = torch.minimum(ratio * batch.advantage, clipped * batch.advantage)
    policy = -mean_of(batch.weight * gain)
    entropy = mean_of(output.actions.entropy()[:, : batch.log_prob.shape[1]])
    loss = policy - config.entropy_weight * entropy
    metrics = {
        "loss/policy": policy,
        "policy/entropy": entropy,
        "policy/kl": mean_of(ratio - 1 - log_ratio),
        "policy/clip_fraction": mean_of((ratio != clipped).float()),
        "policy/max_log_ratio": of_all_parts(log_ratio.abs().max()).max(),
    }
    if config.anchor_weight:
        away = torch.where(executed, batch.anchor_log_prob - batch.log_prob - log_ratio, 0.0)  # log p_first - log p
        metrics["loss/anchor"] = mean_of(away.exp() - 1 - away)
        loss = loss + config.anchor_weight * metrics["loss/anchor"]
    return loss, {name: value.detach() for name, value in (metrics | _router(output)).items()}


def executed_mean(batch: Decisions) -> Callable[[Tensor], Tensor]:
    """Takes the mean of [B, k] over the actions that were executed."""
    executed = (batch.weight > 0).float()
    return lambda values: mean((values * executed).sum(), executed.sum())


def _router(output: VLAOutput) -> dict[str, Tensor]:
    """Entropy of the router's probabilities as a share of log E, and dead experts, over all layers."""
    entropies = [routing.entropy_share() for routing in output.routing]
    dead = torch.stack([routing.num_dead_experts() for routing in output.routing]).sum()
    return {"router/entropy": torch.stack(entropies).mean(), "router/dead_experts": dead}
