"""The clipped policy gradient that ppo and grpo share (Schulman et al. 2017, "Proximal Policy Optimization", eq. 7).

    r = exp(log p(a) - log p_old(a))                                     per executed action, float32
    L = -mean(w min(r A, clip(r, 1 - low, 1 + high) A)) - w_ent mean(H) + w_ref mean(KL)

    clip     low and high may differ: a higher upper bound leaves room for rare actions (Yu et al. 2025, "DAPO")
    KL       to the reference policy, which is the run's initial one, by exp(d) - 1 - d with d = log p_ref - log p
             (Schulman 2020, "Approximating KL divergence", k3); weight 0 skips the forward pass of that policy

    update   `epochs` passes over a rollout in minibatches of equal size, until "policy/kl" exceeds `max_kl`; the order
             of the minibatches is sampled from (seed, iteration, epoch)

An action's probability is the product over its dimensions. A ratio per chunk (a product of 8 x 7 factors leaves the
clip at once) and a ratio per dimension (it ignores that they act together) are not used.

Logged: "policy/kl", the mean of r - 1 - log r, the KL to the policy that acted; "policy/clip_fraction", the share of
actions whose ratio is outside the clip; "policy/entropy"; the router's entropy as a share of the maximum, and the
number of experts that got less than 1 % of the choices.

Shape letters: B decisions, k executed actions of a chunk, K chunk size, E experts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Annotated, ClassVar, Generic, TypeVar

import numpy as np
import torch
from annotated_types import Interval, Lt
from torch import Tensor
from torch.nn import functional as F

from agent.algorithms.method import AlgorithmConfig, Context, mean_metrics
from agent.algorithms.rollout_batch import Decisions, Reward, RolloutBatch, decisions
from agent.learning.bad_batch import saved_if_not_finite
from agent.learning.config import LearnerConfig
from agent.learning.generators import seeded_generator
from agent.learning.gradients import Loss
from agent.learning.learner import Learner
from agent.runs.run_folder import PRETRAINED
from envs.errors import UserError
from envs.world import World
from rollout.dataset.batches import TrainingData
from rollout.types import Trajectory
from vla_model.heads.moe import keep_balance
from vla_model.model import VLA, VLAOutput
from vla_model.numerics.means import mean, of_all_parts
from vla_model.policy import VLAPolicy, on_best_device
from vla_model.types import Policy
from vla_model.weights.checkpoint import load_policy


@dataclass(frozen=True, kw_only=True)
class SurrogateConfig:
    """The clipped loss, and how often it is optimised on a rollout."""

    epochs: Annotated[int, Interval(ge=1, le=1_000)] = 3
    """Passes over a rollout."""
    clip_low: Annotated[float, Interval(gt=0, lt=1)] = 0.2
    clip_high: Annotated[float, Interval(gt=0, le=1_000_000)] = 0.2
    max_kl: Annotated[float, Interval(gt=0, le=1_000_000)] = 0.05
    """No further epoch after one whose mean "policy/kl" exceeds this."""
    min_log_scale: Annotated[float, Lt(2)] = -2.0
    """VLAConfig.min_log_scale from the first iteration on; below 2. Cloned policies have next to no variance in some
    dimensions (a gripper that opens or closes): nothing is explored there, and any update moves the ratios out of the
    clip."""
    noise_correlation: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Of an action's noise with the previous action's, below 1 (vla_model/heads/noise.py)."""
    entropy_weight: Annotated[float, Interval(ge=0, le=1_000_000)] = 0.0
    """w_ent"""
    reference_kl_weight: Annotated[float, Interval(ge=0, le=1_000_000)] = 0.0
    """w_ref"""


@dataclass(frozen=True, kw_only=True)
class PolicyGradientConfig(AlgorithmConfig):
    """Settings of an algorithm whose loss this is."""

    acts_by_average: ClassVar[bool] = False
    repeats_loss: ClassVar[bool] = False

    reward: Reward = "success"
    surrogate: SurrogateConfig = field(default_factory=SurrogateConfig)

    def check_learner(self, learner: LearnerConfig, iterations: int) -> None:
        """
        Raises:
            UserError: ema_decay or num_updates is set.
        """
        del iterations
        if learner.ema_decay:
            raise UserError(
                f"learner.ema-decay is {learner.ema_decay}, but ppo and grpo need the ratios of the learner's weights, "
                "so these must act and not their average; leave it out"
            )
        if learner.num_updates is not None:
            raise UserError(
                f"learner.num-updates is {learner.num_updates}, but those of ppo and grpo depend on the episodes; "
                "leave it out, and the learning rate follows the iterations"
            )

    def prepare(self, model: VLA) -> None:
        """Bound the scale of its action distribution, and stop the balancing of its router."""
        model.config.min_log_scale = self.surrogate.min_log_scale
        keep_balance(model)  # balancing would change the policy, and so the ratios, outside the loss


C = TypeVar("C", bound=PolicyGradientConfig)


class PolicyGradient(ABC, Generic[C]):
    """A method that samples actions and optimises the clipped loss; a subclass defines their advantages."""

    def __init__(self, config: C, context: Context) -> None:
        self.data: list[TrainingData] = []
        self._config = config
        self._context = context

    def actor(self, model: VLA) -> Callable[[World], Policy]:
        """Samples actions, in float32 like the learner's forward pass (rollout_batch.py)."""
        policy = VLAPolicy(
            model,
            self._context.processor,
            version=-1,  # so that the first published weights are always loaded
            sample=True,
            seed=self._context.seed,
            dtype="float32",
            noise_correlation=self._config.surrogate.noise_correlation,
            n_action_steps=self._context.n_action_steps,
        )
        return partial(on_best_device, policy)

    @abstractmethod
    def advantages(self, trajectories: list[Trajectory]) -> RolloutBatch:
        """The trajectories that are trained on, with the advantages of their actions."""

    @abstractmethod
    def loss(self, iteration: int) -> Loss[VLA]:
        """Of a batch of Decisions."""

    def learn(self, learner: Learner[VLA], trajectories: list[Trajectory], iteration: int) -> dict[str, float]:
        """Returns the means over the updates; "policy/first_log_ratio" is the first update's, nearly 0."""
        rollout_batch = self.advantages(trajectories)
        if not rollout_batch.trajectories:
            return rollout_batch.metrics
        batch = decisions(rollout_batch, self._context.processor, learner.model.config.history)
        loss, surrogate, size = self.loss(iteration), self._config.surrogate, learner.config.batch_size
        if surrogate.reference_kl_weight:
            batch = replace(batch, reference_log_prob=self._reference_log_prob(batch, size))
        metrics: list[dict[str, float]] = []
        epochs = 0
        while epochs < surrogate.epochs:
            epochs, first = epochs + 1, len(metrics)
            for minibatch in self._minibatches(batch, size, iteration, epochs):
                with saved_if_not_finite(minibatch, self._context.run.root):
                    metrics.append(learner.update(minibatch.to(learner.device), loss))
            if np.mean([update["policy/kl"] for update in metrics[first:]]) > surrogate.max_kl:
                break
        counts = {"policy/epochs": float(epochs), "learner/decisions": float(len(batch))}
        first_ratio = {"policy/first_log_ratio": metrics[0]["policy/max_log_ratio"]}
        return rollout_batch.metrics | mean_metrics(metrics) | first_ratio | counts

    @torch.no_grad()
    def _reference_log_prob(self, batch: Decisions, batch_size: int) -> Tensor:
        reference, _ = load_policy(self._context.run.checkpoint(0) / PRETRAINED)
        parts = [batch.rows(rows) for rows in torch.arange(len(batch)).split(batch_size)]
        return torch.cat([predict(reference, part).actions.log_prob(part.sampled) for part in parts])

    def _minibatches(self, batch: Decisions, batch_size: int, iteration: int, epoch: int) -> Iterator[Decisions]:
        order = torch.randperm(len(batch), generator=seeded_generator(self._context.seed, iteration, epoch))
        return map(batch.rows, order.tensor_split(max(1, round(len(batch) / batch_size))))


def predict(model: VLA, batch: Decisions) -> VLAOutput:
    """The model's output in float32; router statistics are of executed actions only.

    Raises:
        UserError: its action distribution has no log-probabilities.
    """
    executed = batch.weight > 0  # [B, k]
    mask = F.pad(executed, (0, model.config.chunk_size - executed.shape[1]))  # [B, K]
    with torch.autocast(batch.log_prob.device.type, enabled=False):
        output = model(batch.inputs, mask=mask)
    if not output.actions.has_log_prob:
        raise UserError(
            f"{type(output.actions).__name__} has no log-probabilities, which ppo and grpo need; rft and dagger do not"
        )
    return output


def surrogate_loss(output: VLAOutput, batch: Decisions, config: SurrogateConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss above, and its metrics."""
    mean_of = executed_mean(batch)
    executed = batch.weight > 0
    log_ratio = torch.where(executed, output.actions.log_prob(batch.sampled) - batch.log_prob, 0.0)  # [B, k]
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
    if config.reference_kl_weight:
        away = torch.where(executed, batch.reference_log_prob - batch.log_prob - log_ratio, 0.0)  # log p_ref - log p
        metrics["loss/reference_kl"] = mean_of(away.exp() - 1 - away)
        loss = loss + config.reference_kl_weight * metrics["loss/reference_kl"]
    return loss, {name: value.detach() for name, value in (metrics | _router(output)).items()}


def executed_mean(batch: Decisions) -> Callable[[Tensor], Tensor]:
    """Returns a function that averages [B, k] over the executed actions."""
    executed = (batch.weight > 0).float()
    return lambda values: mean((values * executed).sum(), executed.sum())


def _router(output: VLAOutput) -> dict[str, Tensor]:
    """Entropy of the router's probabilities as a share of log E, and dead experts, over all layers."""
    entropies = [routing.entropy_share() for routing in output.routing]
    dead = torch.stack([routing.num_dead_experts() for routing in output.routing]).sum()
    return {"router/entropy": torch.stack(entropies).mean(), "router/dead_experts": dead}
