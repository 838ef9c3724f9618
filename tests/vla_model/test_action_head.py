"""The Laplace distribution of actions, against torch.distributions and numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_model import gradient, tiny_config

from vla_model.action_head import ActionHead, LaplaceActions


def some_actions() -> LaplaceActions:
    generator = torch.Generator().manual_seed(0)
    return LaplaceActions(
        loc=torch.randn(2, 3, 4, generator=generator), log_scale=torch.randn(2, 3, 4, generator=generator)
    )


def test_log_prob_is_that_of_torch_distributions() -> None:
    ours, actions = some_actions(), torch.randn(2, 3, 4)
    theirs = torch.distributions.Laplace(ours.loc, ours.log_scale.exp())
    torch.testing.assert_close(ours.log_prob(actions), theirs.log_prob(actions).sum(-1))
    torch.testing.assert_close(ours.log_prob(actions[:, :2]), theirs.log_prob(actions).sum(-1)[:, :2])
    torch.testing.assert_close(ours.entropy(), theirs.entropy().sum(-1))
    assert ours.log_prob(actions.bfloat16()).dtype == torch.float32


def test_samples_have_the_mean_and_the_mean_deviation_of_the_distribution() -> None:
    actions = LaplaceActions(loc=torch.full((1, 1, 200_000), 0.7), log_scale=torch.full((1, 1, 200_000), -1.0))
    drawn = actions.sample(torch.Generator().manual_seed(0)).drawn
    assert drawn.mean().item() == pytest.approx(0.7, abs=0.01)
    assert (drawn - 0.7).abs().mean().item() == pytest.approx(math.exp(-1.0), rel=0.01)


def test_the_same_generator_draws_the_same_actions() -> None:
    draws = [some_actions().sample(torch.Generator().manual_seed(3)).drawn for _ in range(2)]
    assert torch.equal(*draws)
    assert not torch.equal(draws[0], some_actions().sample(torch.Generator().manual_seed(4)).drawn)


def test_loss_is_the_l1_of_the_mode_and_the_likelihood_of_the_scale() -> None:
    actions = LaplaceActions(loc=torch.tensor([[[1.0, 2.0]]]), log_scale=torch.tensor([[[0.0, math.log(2.0)]]]))
    target, mask = torch.tensor([[[1.5, 0.0]]]), torch.ones(1, 1, dtype=torch.bool)
    l1 = (0.5 + 2.0) / 2
    nll = ((math.log(2) + 0.5) + (math.log(2) + math.log(2) + 2.0 / 2)) / 2
    assert actions.loss(target, mask).item() == pytest.approx(l1 + nll)


def test_scale_does_not_change_how_the_mode_learns() -> None:
    gradients = []
    for log_scale in (-3.0, 1.0):
        loc = torch.zeros(1, 1, 2, requires_grad=True)
        actions = LaplaceActions(loc=loc, log_scale=torch.full((1, 1, 2), log_scale))
        actions.loss(torch.tensor([[[1.0, -2.0]]]), torch.ones(1, 1, dtype=torch.bool)).backward()
        gradients.append(loc.grad)
    torch.testing.assert_close(gradients[0], torch.tensor([[[-0.5, 0.5]]]))
    torch.testing.assert_close(gradients[1], gradients[0])


def test_the_best_scale_is_the_error() -> None:
    log_scale = torch.tensor([[[math.log(0.3)]]], requires_grad=True)
    LaplaceActions(loc=torch.zeros(1, 1, 1), log_scale=log_scale).loss(
        torch.full((1, 1, 1), 0.3), torch.ones(1, 1, dtype=torch.bool)
    ).backward()
    assert gradient(log_scale).item() == pytest.approx(0.0, abs=1e-6)


def test_actions_after_the_end_do_not_count() -> None:
    actions, target = some_actions(), torch.randn(2, 3, 4)
    mask = torch.tensor([[True, False, False], [True, True, False]])
    changed = torch.where(mask[:, :, None], target, 99.0)
    torch.testing.assert_close(actions.loss(changed, mask), actions.loss(target, mask))
    only = LaplaceActions(loc=actions.loc[:1, :1], log_scale=actions.log_scale[:1, :1])
    first = torch.tensor([[True, False, False], [False, False, False]])
    torch.testing.assert_close(
        actions.loss(target, first), only.loss(target[:1, :1], torch.ones(1, 1, dtype=torch.bool))
    )


def test_scales_are_clamped() -> None:
    parameters = torch.tensor([[[0.0, -99.0, 0.0, 99.0]]])
    assert LaplaceActions.from_parameters(parameters).log_scale.flatten().tolist() == list(
        LaplaceActions.log_scale_range
    )


def test_head_stacks_its_layers_and_reports_the_routing_of_each() -> None:
    torch.manual_seed(0)
    head = ActionHead(tiny_config(moe_layers=3, num_experts=5, top_k_experts=2))
    actions, routing = head(torch.randn(6, 4, 32))
    assert actions.loc.shape == actions.log_scale.shape == (6, 4, 3)
    assert [(r.logits.shape, r.experts.shape) for r in routing] == [((6, 4, 5), (6, 4, 2))] * 3


def test_an_unknown_distribution_is_refused_with_those_that_exist() -> None:
    with pytest.raises(ValueError, match=r"'gauss' does not exist; distributions: laplace"):
        ActionHead(tiny_config(action_distribution="gauss"))
