"""PPO's advantages against hand-computed numbers, and its loss against the formula."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from sides_policy import sides_model, sides_processor
from sides_rollouts import rollout

from agent.algorithms.ppo import generalised_advantages, ppo_advantages, ppo_loss
from agent.algorithms.ppo_config import PPOConfig, SurrogateConfig
from agent.algorithms.rollout_batch import Decisions, decisions, rewards
from agent.learning.config import LearnerConfig
from agent.learning.learner import Learner
from vla_model.model import VLA


def array(*numbers: float) -> np.ndarray:
    return np.array(numbers, np.float32)


def test_gae_of_three_steps_matches_hand_computed_values() -> None:
    # delta_2 = 1 - 0.4 = 0.6; delta_1 = 0 + 0.5 * 0.4 - 0.2 = 0; delta_0 = 0 + 0.5 * 0.2 - 0.6 = -0.5
    # A_2 = 0.6; A_1 = 0 + 0.25 * 0.6 = 0.15; A_0 = -0.5 + 0.25 * 0.15 = -0.4625
    found = generalised_advantages(array(0, 0, 1), array(0.6, 0.2, 0.4), discount=0.5, gae_lambda=0.5)
    np.testing.assert_allclose(found, [-0.4625, 0.15, 0.6], rtol=1e-6)


def test_with_lambda_1_advantage_plus_value_is_the_return() -> None:
    value = array(0.3, -0.7, 0.1)
    found = generalised_advantages(array(1, 2, 4), value, discount=0.5, gae_lambda=1.0)
    np.testing.assert_allclose(found + value, [1 + 1 + 1, 2 + 2, 4], rtol=1e-6)


def test_success_is_a_terminal_reward_and_the_step_limit_is_terminal() -> None:
    won, lost = rollout()
    assert won.success
    assert not lost.success
    assert rewards(won, "success").tolist() == [0.0] * (won.num_steps - 1) + [1.0]
    assert not rewards(lost, "success").any()
    np.testing.assert_array_equal(rewards(won, "dense"), won.reward)
    assert lost.truncated
    config = PPOConfig(discount=1.0, gae_lambda=1.0)
    rollout_batch = ppo_advantages([won, lost], config)
    np.testing.assert_allclose(rollout_batch.advantages[0].target, 1.0, atol=1e-6)
    np.testing.assert_allclose(rollout_batch.advantages[1].target, 0.0, atol=1e-6)


def test_advantages_are_standardised_over_the_rollout() -> None:
    rollout_batch = ppo_advantages(rollout(), PPOConfig())
    everything = np.concatenate([c.advantage for c in rollout_batch.advantages])
    assert everything.mean() == pytest.approx(0.0, abs=1e-6)
    assert everything.std() == pytest.approx(1.0, abs=1e-4)


def batch() -> Decisions:
    return decisions(ppo_advantages(rollout(), PPOConfig()), sides_processor())


def test_ratios_beyond_the_clip_have_no_gradient() -> None:
    model, acted = sides_model(value_head=True), batch()
    config = PPOConfig(surrogate=SurrogateConfig(clip_low=0.2, clip_high=0.2), value_weight=0.0)
    for log_ratio, advantage, moves in ((0.5, 1.0, False), (0.5, -1.0, True), (-0.5, 1.0, True), (-0.5, -1.0, False)):
        moved = replace(
            acted, log_prob=acted.log_prob - log_ratio, advantage=torch.full_like(acted.advantage, advantage)
        )
        loss, metrics = ppo_loss(model, moved, config)
        (gradient,) = torch.autograd.grad(loss, model.action_head.to_parameters.weight)
        assert metrics["policy/clip_fraction"] == 1.0
        assert bool(gradient.abs().max() > 0) is moves, (log_ratio, advantage)


def test_warm_up_trains_only_the_value_head() -> None:
    model = sides_model(value_head=True)
    loss, _ = ppo_loss(model, batch(), PPOConfig(), only_value=True)
    loss.backward()
    moved = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert moved
    assert all(name.startswith("value_head.") for name in moved)


def test_the_value_loss_is_clipped() -> None:
    model, acted = sides_model(value_head=True), batch()
    far = replace(acted, value=acted.value - 5.0, target=acted.target + 5.0)
    loss, _ = ppo_loss(model, far, PPOConfig(value_clip=0.2), only_value=True)
    # The clipped prediction is V_old + 0.2, the farther of the two from the target, so the loss is flat here.
    loss.backward()
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_a_policy_without_a_value_head_is_refused() -> None:
    with pytest.raises(ValueError, match="value_head=True"):
        ppo_advantages(rollout(value_head=False), PPOConfig())


def test_the_reference_kl_is_the_divergence_from_the_initial_policy() -> None:
    model, acted = sides_model(value_head=True), batch()
    still, moved = PPOConfig(), PPOConfig(surrogate=SurrogateConfig(reference_kl_weight=2.0))
    loss, _ = ppo_loss(model, acted, still)
    same, metrics = ppo_loss(model, acted, moved)
    assert metrics["loss/reference_kl"] < 1e-9
    torch.testing.assert_close(loss, same)
    away, metrics = ppo_loss(model, replace(acted, reference_log_prob=acted.log_prob + 0.5), moved)
    expected = np.exp(0.5) - 1 - 0.5
    assert metrics["loss/reference_kl"].item() == pytest.approx(expected, rel=1e-4)
    assert (away - loss).item() == pytest.approx(2 * expected, rel=1e-4)


def test_only_terms_of_the_loss_are_logged() -> None:
    model, acted = sides_model(value_head=True), batch()
    _, metrics = ppo_loss(model, acted, PPOConfig())
    assert "loss/reference_kl" not in metrics
    assert metrics.keys() >= {"loss/policy", "loss/value"}
    assert "loss/policy" not in ppo_loss(model, acted, PPOConfig(), only_value=True)[1]


def learned(far: float) -> Learner[VLA]:
    """After six updates with that error of the value targets, the first two a warm-up."""
    config = LearnerConfig(warmup_updates=0, ema_decay=0.0)
    with closing(Learner(sides_model(value_head=True), config)) as learner:
        for i in range(6):
            rows = replace(batch(), target=batch().target + far * (i % 2))
            learner.update(rows, partial(ppo_loss, config=PPOConfig(), only_value=i < 2))
    return learner


def test_the_value_loss_does_not_change_the_policy() -> None:
    near, far = learned(0.0).model.state_dict(), learned(1000.0).model.state_dict()
    policy = [name for name in near if not name.startswith("value_head.")]
    assert all(torch.equal(near[name], far[name]) for name in policy)
    assert any(not torch.equal(near[name], far[name]) for name in near)


def test_warm_up_changes_no_policy_weight_not_even_by_weight_decay() -> None:
    with closing(Learner(sides_model(value_head=True), LearnerConfig(warmup_updates=0, weight_decay=0.5))) as learner:
        before = {name: value.clone() for name, value in learner.model.state_dict().items()}
        metrics = learner.update(batch(), partial(ppo_loss, config=PPOConfig(), only_value=True))
        after = learner.model.state_dict()
    assert metrics["learner/grad_norm"] == 0.0
    assert metrics["learner/value_grad_norm"] > 0.0
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert all(name.startswith("value_head.") for name in moved)
