"""Proximal policy optimisation with a value per action (Schulman et al. 2017, equation 7; GAE: Schulman et al. 2016,
equation 16). grpo shares the surrogate, its updates and what is logged.

    r   = exp(log p(a) - log p_old(a))                                   per executed action, float32
    d_t = r_t + g V_{t+1} - V_t          A_t = d_t + g l A_{t+1}         target_t = A_t + V_t
    surrogate(A) = -mean(w min(r A, clip(r, 1 - low, 1 + high) A)) - w_ent mean(H) + w_ref mean(KL)
    L   = surrogate(A) + w_v mean(1/2 max((V - target)^2, (V_old + clip(V - V_old, -c, c) - target)^2))

t counts executed actions, not decisions: every action of a chunk has its own reward, its own value (predicted at its
decision, from that observation) and its own advantage. Advantages are standardised over the rollout. An action's
probability is the product over its dimensions.

    reward      1 at the end of an episode that succeeded, else 0; or the world's dense reward
    the end     V is 0 beyond an episode's end, also at the step limit: the deadline is part of the task, as success
                within it is what is measured. No bootstrapping there: it would reward a policy for success that it
                does not reach in time.
    warm-up     in the first iterations only the value head learns: advantages from an untrained value head undo what
                cloning learned
    clip        low and high may differ: a higher upper bound leaves room for rare actions (Yu et al. 2025, "DAPO")
    KL          to the reference policy, which is the run's initial one, by exp(d) - 1 - d with d = log p_ref - log p
                (Schulman 2020, "Approximating KL divergence", k3); weight 0 skips the forward pass of that policy
    update      `epochs` passes over a rollout in minibatches of equal size, until "policy/kl" exceeds `max_kl`; the
                order of the minibatches is sampled from (seed, iteration, epoch)

Logged: "policy/kl", the mean of r - 1 - log r, the KL to the policy that acted; "policy/clip_fraction", the share of
actions whose ratio is outside the clip; "policy/entropy"; the router's entropy as a share of the maximum, and the
number of experts that got less than 1 % of the choices.

Left out: a ratio per chunk (a product of 8 x 7 factors leaves the clip at once) or per dimension (it ignores that they
act together); a bound on the surrogate of negative advantages (dual clip), as it never applied here; an adaptive KL
penalty, as epochs already stop by KL; a separate value network, which costs as much as the policy and was no better
where the two were compared (FIELD: one head on the backbone).

Shape letters: B decisions, k executed actions of a chunk, K chunk size, T control steps of an episode.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from agent.algorithms.method import Context, Specs, mean_metrics
from agent.algorithms.ppo_config import PolicyGradientConfig, PPOConfig, SurrogateConfig
from agent.algorithms.rollout_batch import Advantages, Decisions, RolloutBatch, decisions, rewards
from agent.learning.bad_batch import saved_if_not_finite
from agent.learning.generators import seeded_generator
from agent.learning.gradients import Loss
from agent.learning.learner import Learner
from agent.runs.run_folder import PRETRAINED
from envs.errors import UserError
from envs.world import World
from rollout.dataset.batches import TrainingData
from rollout.types import RunEpisodes, Trajectory
from vla_model.model import VLA, VLAOutput
from vla_model.numerics.means import mean, of_all_parts
from vla_model.policy import VLAPolicy, on_best_device
from vla_model.types import Policy
from vla_model.weights.checkpoint import load_policy

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


class PPO(PolicyGradient[PPOConfig]):
    """PPO: trains on every episode of an iteration."""

    def collect(self, run: RunEpisodes, specs: Specs, iteration: int) -> list[Trajectory]:
        del iteration
        return list(run(specs(0, 1), n_action_steps=self._context.n_action_steps))

    def advantages(self, trajectories: list[Trajectory]) -> RolloutBatch:
        return ppo_advantages(trajectories, self._config)

    def loss(self, iteration: int) -> Loss[VLA]:
        return partial(ppo_loss, config=self._config, only_value=iteration < self._config.warmup_iterations)


def generalised_advantages(
    reward: NDArray[np.float32], value: NDArray[np.float32], discount: float, gae_lambda: float
) -> NDArray[np.float32]:
    """A_t of one complete episode, float32 [T].

    Examples:
        >>> generalised_advantages(np.array([0.0, 1.0]), np.array([0.5, 0.5]), 0.5, 1.0)
        array([0. , 0.5], dtype=float32)
    """
    advantage = np.zeros(len(reward) + 1)
    next_value = np.append(value[1:], 0.0)
    delta = reward + discount * next_value - value
    for t in reversed(range(len(reward))):
        advantage[t] = delta[t] + discount * gae_lambda * advantage[t + 1]
    return advantage[:-1].astype(np.float32)


def ppo_advantages(trajectories: Sequence[Trajectory], config: PPOConfig) -> RolloutBatch:
    """Advantages and value targets of every episode, and the variance of the targets that the values explain.

    Raises:
        UserError: the policy has no value head.
    """
    found = []
    for t in trajectories:
        if t.value is None:
            raise UserError(f"the policy of {t.spec.id} predicted no values; ppo needs a model with value_head=True")
        advantage = generalised_advantages(rewards(t, config.reward), t.value, config.discount, config.gae_lambda)
        found.append(Advantages(advantage=advantage, target=advantage + t.value, weight=np.ones_like(advantage)))
    advantages = np.concatenate([c.advantage for c in found])
    targets = np.concatenate([c.target for c in found])
    mean, std = advantages.mean(), advantages.std() + 1e-8
    standardised = [Advantages(advantage=(c.advantage - mean) / std, target=c.target, weight=c.weight) for c in found]
    # An advantage is the value's error: target - value.
    explained = 1.0 - float(advantages.var() / max(targets.var(), 1e-8))
    metrics = {"value/explained_variance": explained, "value/target_mean": float(targets.mean())}
    return RolloutBatch(trajectories=list(trajectories), advantages=standardised, metrics=metrics)


def ppo_loss(
    model: VLA, batch: Decisions, config: PPOConfig, *, only_value: bool = False
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss above, and its metrics.

    Args:
        model: with a value head.
        only_value: train the value head alone, as in the warm-up.
    """
    output = predict(model, batch)
    policy, metrics = surrogate_loss(output, batch, config.surrogate)
    assert output.values is not None, "ppo_advantages refuses a policy without values"
    value = output.values[:, : batch.value.shape[1]]  # [B, k]
    clipped = batch.value + (value - batch.value).clamp(-config.value_clip, config.value_clip)
    errors = torch.maximum((value - batch.target).square(), (clipped - batch.target).square())
    value_loss = executed_mean(batch)(errors) / 2
    metrics["loss/value"] = value_loss.detach()
    if only_value:  # the value head's input is detached, so nothing else gets a gradient
        del metrics["loss/policy"]
        return config.value_weight * value_loss, metrics
    return config.value_weight * value_loss + policy, metrics


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
    """surrogate(A) above, and its metrics."""
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
