"""Rollouts as rows of decisions, and ratios of 1 at learning rate 0."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from sides_policy import WillingSidesWorld, sides_model, sides_processor, sides_specs
from sides_rollouts import rollouts

from agent.algorithms.grpo import grpo_advantages, grpo_loss
from agent.algorithms.grpo_config import GRPOConfig
from agent.algorithms.ppo import ppo_advantages, ppo_loss
from agent.algorithms.ppo_config import PPOConfig
from agent.algorithms.rollout_batch import Decisions, decisions
from agent.learning.config import LearnerConfig
from agent.learning.learner import Learner
from rollout.collect import collect
from rollout.types import Trajectory
from rollout.workers.workers import Workers, WorkersConfig
from vla_model.policy import VLAPolicy

STILL = LearnerConfig(
    batch_size=64, learning_rate=0.0, warmup_updates=0, final_lr_share=1.0, weight_decay=0.0, ema_decay=0.0
)


def test_a_decision_has_its_observation_and_the_executed_actions() -> None:
    trajectories = rollouts(6)
    rollout_batch = ppo_advantages(trajectories, PPOConfig())
    batch = decisions(rollout_batch, sides_processor())
    assert len(batch) == sum(len(t.decision_step) for t in trajectories)
    row = 0
    for t, credit in zip(trajectories, rollout_batch.advantages, strict=True):
        assert t.log_prob is not None
        for i, step in enumerate(t.decision_step):
            rest = min(2, t.num_steps - step)
            assert batch.log_prob[row, :rest].tolist() == t.log_prob[step : step + rest].tolist()
            assert batch.advantage[row, :rest].tolist() == credit.advantage[step : step + rest].tolist()
            assert (batch.weight[row] > 0).tolist() == [j < rest for j in range(2)]
            np.testing.assert_array_equal(batch.inputs.frames["front"][row].numpy(), t.frames["front"][i])
            assert batch.inputs.state[row, 0] == pytest.approx(t.state[step, 0] / 3.0)
            row += 1


def test_a_policy_that_does_not_sample_is_refused() -> None:
    trajectories = rollouts(2)
    silent = [replace(t, log_prob=None) for t in trajectories]
    with pytest.raises(ValueError, match="recorded no log-probabilities"):
        decisions(ppo_advantages(silent, PPOConfig()), sides_processor())


@pytest.mark.parametrize("all_frames", [False, True])
def test_decisions_of_a_policy_with_a_history_have_the_recorded_history(all_frames: bool) -> None:
    model = sides_model(value_head=True, history_length=2, history_stride=2)
    policy = VLAPolicy(model, sides_processor(), sample=True, seed=3, dtype="float32")
    found = collect(policy, WillingSidesWorld(8), sides_specs(6), n_action_steps=1, all_frames=all_frames)
    trajectories = sorted(found, key=lambda t: t.spec)
    rollout_batch = ppo_advantages(trajectories, PPOConfig())
    batch = decisions(rollout_batch, sides_processor(), model.config.history)
    assert batch.inputs.past_state is not None
    first = trajectories[0]
    expected = [[first.state[max(t - 4, 0), 0] / 3.0, first.state[max(t - 2, 0), 0] / 3.0] for t in first.decision_step]
    np.testing.assert_allclose(batch.inputs.past_state[: len(first.decision_step), :, 0], expected, rtol=1e-6)
    _, metrics = ppo_loss(model, batch, PPOConfig())
    assert metrics["policy/max_log_ratio"] < 1e-5
    with torch.no_grad():
        forgetful = replace(batch, inputs=replace(batch.inputs, past_state=0.0 * batch.inputs.past_state))
    assert ppo_loss(model, forgetful, PPOConfig())[1]["policy/max_log_ratio"] > 1e-4


def ppo_batch(trajectories: list[Trajectory]) -> Decisions:
    return decisions(ppo_advantages(trajectories, PPOConfig()), sides_processor())


def grpo_batch(trajectories: list[Trajectory]) -> Decisions:
    return decisions(grpo_advantages(trajectories, GRPOConfig(group_size=4)), sides_processor())


@pytest.mark.parametrize("distribution", ["laplace", "tokens"])
@pytest.mark.parametrize("workers", [0, 2])
def test_at_learning_rate_0_all_ratios_are_1(distribution: str, workers: int) -> None:
    model = sides_model(value_head=True, action_distribution=distribution)
    policy = VLAPolicy(model, sides_processor(), sample=True, seed=3, dtype="float32")
    with Workers(partial(WillingSidesWorld, 8), lambda _: policy, WorkersConfig(workers=workers)) as crew:
        trajectories = sorted(crew.collect(sides_specs(12, repeats=4)), key=lambda t: t.spec)
    learner = Learner(model, STILL)
    before = [p.detach().clone() for p in model.parameters()]
    cases: list[tuple[Decisions, Callable[..., tuple[torch.Tensor, dict[str, torch.Tensor]]]]] = [
        (ppo_batch(trajectories), partial(ppo_loss, config=PPOConfig())),
        (grpo_batch(trajectories), partial(grpo_loss, config=GRPOConfig(group_size=4))),
    ]
    for batch, loss in cases:
        metrics = learner.update(batch, loss)
        for part in (batch.part(i, STILL.num_parts) for i in range(STILL.num_parts)):
            _, exact = loss(model, part)
            assert exact["policy/max_log_ratio"] < 1e-5
        assert metrics["policy/max_log_ratio"] < 1e-5
        assert metrics["policy/clip_fraction"] == 0.0
        assert abs(metrics["policy/kl"]) < 1e-7
        assert metrics["learner/grad_norm"] > 0.0
    learner.close()
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_a_distribution_without_log_probabilities_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    batch, model = ppo_batch(rollouts(2)), sides_model(value_head=True)
    monkeypatch.setattr(type(model(batch.inputs).actions), "has_log_prob", False)
    with pytest.raises(ValueError, match="has no log-probabilities"):
        ppo_loss(model, batch, PPOConfig())


def test_ratios_follow_the_weights() -> None:
    batch, model = ppo_batch(rollouts(8)), sides_model(value_head=True)
    with torch.no_grad():
        model.action_head.to_parameters.bias.add_(0.1)
    _, metrics = ppo_loss(model, batch, PPOConfig())
    assert metrics["policy/kl"] > 1e-4
    assert metrics["policy/max_log_ratio"] > 0.05
