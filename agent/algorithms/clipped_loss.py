"""The clipped policy gradient that ppo and grpo share (Schulman et al. 2017, "Proximal Policy Optimization", eq. 7).

    r = exp(log p(a) - log p_old(a))                                     per executed action, float32
    L = -mean(w min(r A, clip(r, 1 - low, 1 + high) A)) - w_ent mean(H) + w_ref mean(KL)

    clip     low and high may differ: a higher ceiling leaves room for rare actions (Yu et al. 2025, "DAPO")
    KL       to the policy that the run began with, by exp(d) - 1 - d with d = log p_first - log p (Schulman 2020,
             "Approximating KL divergence", k3); 0 weight spares the pass through that policy

    update   `epochs` passes over a rollout in minibatches of equal size, until the policy has moved by `max_kl`; the
             order of the minibatches is sampled from (seed, iteration, epoch)

An action's probability is the product over its dimensions. Neither a chunk's product over its actions (ratios of 8 x 7
factors leave the clip at once) nor a ratio per dimension (it ignores that they act together) is used.

The guards that are logged: "policy/kl", the mean of r - 1 - log r, how far the policy has moved from the one that
acted; "policy/clip_fraction", the share of actions whose ratio lies outside the clip; "policy/entropy"; of the
router, its entropy as a share of the largest possible one, and the experts that got less than 1 % of the choices.

Shape letters: B decisions, k executed actions of a chunk, K chunk length, E experts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar, Generic, TypeVar

import numpy as np
import torch
from annotated_types import Interval, Lt
from torch import Tensor
from torch.nn import functional as F

from agent.algorithms.method import AlgorithmConfig, Context
from agent.algorithms.rollout_batch import Decisions, Reward, RolloutBatch, decisions
from agent.learning.config import LearnerConfig
from agent.learning.gradients import Loss
from agent.learning.learner import Learner
from agent.learning.offending import kept_if_not_finite
from agent.runs.run_folder import PRETRAINED
from envs.errors import UserError
from envs.world import World
from rollout.dataset.batches import TrainingData
from rollout.types import Trajectory
from vla_model.heads.moe import keep_balance
from vla_model.model import VLA, VLAOutput
from vla_model.numerics.means import mean, of_all_parts
from vla_model.policy import VLAPolicy
from vla_model.types import Policy
from vla_model.weights.checkpoint import load_policy


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
            UserError: the weights that learn would not act, or updates are counted that come as they come.
        """
        del iterations
        if learner.ema_decay:
            raise UserError(
                f"learner.ema-decay is {learner.ema_decay}, but the ratios of ppo and grpo are of the weights that "
                "learn, so these must act and not their average; leave it out"
            )
        if learner.num_updates is not None:
            raise UserError(
                f"learner.num-updates is {learner.num_updates}, but ppo and grpo make as many as there are episodes to "
                "learn from; leave it out, and the learning rate falls by iterations"
            )

    def prepare(self, model: VLA) -> None:
        """Bound the scale of its actions' distribution, and stop what else moves it."""
        model.config.min_log_scale = self.surrogate.min_log_scale
        keep_balance(model)  # who moves must be the policy that the ratios are of


C = TypeVar("C", bound=PolicyGradientConfig)


class PolicyGradient(ABC, Generic[C]):
    """A method that samples actions and passes over them a few times; who inherits it says what they are worth."""

    def __init__(self, config: C, context: Context) -> None:
        self.data: list[TrainingData] = []
        self._config = config
        self._context = context

    def actor(self, model: VLA) -> Callable[[World], Policy]:
        """Samples actions, in float32 like the pass that learns (rollout_batch.py)."""
        policy = VLAPolicy(
            model,
            self._context.processor,
            version=-1,  # whatever weights are published first, they are taken
            sample=True,
            seed=self._context.seed,
            dtype="float32",
            noise_correlation=self._config.surrogate.noise_correlation,
            n_action_steps=self._context.n_action_steps,
        )
        return lambda _: policy.to("auto")

    @abstractmethod
    def credit(self, trajectories: list[Trajectory]) -> RolloutBatch:
        """Advantages of all actions that are learned from."""

    @abstractmethod
    def loss(self, iteration: int) -> Loss[VLA]:
        """Of a batch of Decisions."""

    def learn(self, learner: Learner[VLA], trajectories: list[Trajectory], iteration: int) -> dict[str, float]:
        """Returns the means over the updates, "policy/first_log_ratio" of the first one, which is to be nearly 0."""
        rollout_batch = self.credit(trajectories)
        if not rollout_batch.trajectories:
            return rollout_batch.metrics
        batch = decisions(rollout_batch, self._context.processor, learner.model.config.history)
        loss, surrogate, size = self.loss(iteration), self._config.surrogate, learner.config.batch_size
        if surrogate.reference_kl_weight:
            batch = replace(batch, reference_log_prob=self._first_log_prob(batch, size))
        told: list[dict[str, float]] = []
        epochs = 0
        while epochs < surrogate.epochs:
            epochs, begun = epochs + 1, len(told)
            for minibatch in self._minibatches(batch, size, iteration, epochs):
                with kept_if_not_finite(minibatch, self._context.run.root):
                    told.append(learner.update(minibatch.to(learner.device), loss))
            if np.mean([metrics["policy/kl"] for metrics in told[begun:]]) > surrogate.max_kl:
                break
        means = {name: float(np.mean([metrics[name] for metrics in told])) for name in told[0]}
        return (
            rollout_batch.metrics
            | means
            | {
                "policy/first_log_ratio": told[0]["policy/max_log_ratio"],
                "policy/epochs": float(epochs),
                "learner/decisions": float(len(batch)),
            }
        )

    @torch.no_grad()
    def _first_log_prob(self, batch: Decisions, batch_size: int) -> Tensor:
        first, _ = load_policy(self._context.run.checkpoint(0) / PRETRAINED)
        parts = [batch.rows(rows) for rows in torch.arange(len(batch)).split(batch_size)]
        return torch.cat([predict(first, part).actions.log_prob(part.sampled) for part in parts])

    def _minibatches(self, batch: Decisions, batch_size: int, iteration: int, epoch: int) -> Iterator[Decisions]:
        state = np.random.SeedSequence([self._context.seed, iteration, epoch]).generate_state(1, np.uint64)
        order = torch.randperm(len(batch), generator=torch.Generator().manual_seed(int(state[0] >> 1)))
        return map(batch.rows, order.tensor_split(max(1, round(len(batch) / batch_size))))


def predict(model: VLA, batch: Decisions) -> VLAOutput:
    """The model in float32, whatever it is else computed in; the experts are looked at where actions were executed.

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
    """The loss above, and its guards for the log."""
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
        away = torch.where(executed, batch.reference_log_prob - batch.log_prob - log_ratio, 0.0)  # log p_first - log p
        metrics["loss/reference_kl"] = mean_of(away.exp() - 1 - away)
        loss = loss + config.reference_kl_weight * metrics["loss/reference_kl"]
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
