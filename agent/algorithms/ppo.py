"""Proximal policy optimisation with a value per action (Schulman et al. 2017; GAE: Schulman et al. 2016, equation 16).

    d_t = r_t + g V_{t+1} - V_t          A_t = d_t + g l A_{t+1}          target_t = A_t + V_t
    L   = surrogate(A) + w_v mean(1/2 max((V - target)^2, (V_old + clip(V - V_old, -c, c) - target)^2))

t counts executed actions, not decisions: every action of a chunk has its own reward, its own value (predicted at its
decision, from that observation) and its own advantage. Advantages are standardised over the rollout.

    reward      1 at the end of an episode that succeeded, else 0; or the world's dense reward
    the end     V is 0 beyond an episode's end, also at the step limit: the deadline is part of the task, as success
                within it is what is measured. No bootstrapping there: it would reward a policy for success that it
                does not reach in time.
    warm-up     in the first iterations only the value head learns: advantages from an untrained value head undo what
                cloning learned

Left out: a bound on the surrogate of negative advantages (dual clip), as it never applied here; an adaptive KL penalty,
as epochs already stop by KL; a separate value network, which costs as much as the policy and was no better where the
two were compared (FIELD: one head on the backbone).

Shape letters: B decisions, k executed actions of a chunk, T control steps of an episode.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar

import numpy as np
import torch
from annotated_types import Interval
from numpy.typing import NDArray
from torch import Tensor

from agent.algorithms.clipped_loss import PolicyGradient, PolicyGradientConfig, executed_mean, predict, surrogate_loss
from agent.algorithms.method import Context, Specs
from agent.algorithms.rollout_batch import Advantages, Decisions, RolloutBatch, rewards
from agent.learning.config import LearnerConfig
from agent.learning.gradients import Loss
from envs.errors import UserError
from rollout.types import RunEpisodes, Trajectory
from vla_model.model import VLA


@dataclass(frozen=True, kw_only=True)
class PPOConfig(PolicyGradientConfig):
    """Settings of ppo."""

    needs_values: ClassVar[bool] = True

    discount: Annotated[float, Interval(ge=0, le=1)] = 0.99
    """g, per control step"""
    gae_lambda: Annotated[float, Interval(ge=0, le=1)] = 0.95
    """l"""
    value_weight: Annotated[float, Interval(gt=0, le=1_000_000)] = 0.5
    """w_v"""
    value_clip: Annotated[float, Interval(gt=0, le=1_000_000)] = 0.2
    """c"""
    warmup_iterations: Annotated[int, Interval(ge=0, le=100_000)] = 2
    """Of the first so many, only the value head learns."""

    def method(self, context: Context) -> PPO:
        return PPO(self, context)

    def check_learner(self, learner: LearnerConfig, iterations: int) -> None:
        """
        Raises:
            UserError: as PolicyGradientConfig, or the warm-up lasts for the whole run.
        """
        super().check_learner(learner, iterations)
        if self.warmup_iterations >= iterations:
            raise UserError(
                f"only the value head learns in algorithm.warmup-iterations, {self.warmup_iterations}, and the run has "
                f"only {iterations} iterations, so the policy would learn nothing; lower the first or raise iterations"
            )


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

    Example:
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
