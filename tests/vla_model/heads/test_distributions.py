"""Distributions of actions, against torch.distributions, numerical integration and numbers worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from tiny_model import STATISTICS, WORLD_SPEC, gradient, tiny_vla

from vla_model.heads.distributions import ActionDistribution, LaplaceActions, TokenActions
from vla_model.inputs.processor import Processor


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
    sampled = actions.sample(torch.Generator().manual_seed(0)).sampled
    assert sampled.mean().item() == pytest.approx(0.7, abs=0.01)
    assert (sampled - 0.7).abs().mean().item() == pytest.approx(math.exp(-1.0), rel=0.01)


def test_the_same_generator_samples_the_same_actions() -> None:
    samples = [some_actions().sample(torch.Generator().manual_seed(3)).sampled for _ in range(2)]
    assert torch.equal(*samples)
    assert not torch.equal(samples[0], some_actions().sample(torch.Generator().manual_seed(4)).sampled)


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
    scales = LaplaceActions.from_parameters(parameters, min_log_scale=-3.0).log_scale
    assert scales.flatten().tolist() == [-3.0, LaplaceActions.max_log_scale]


def some_tokens(logits: torch.Tensor | None = None) -> TokenActions:
    if logits is None:
        logits = 3 * torch.randn(2, 3, 4 * 256, generator=torch.Generator().manual_seed(0))
    return TokenActions.from_parameters(logits)


def test_an_action_s_probabilities_integrate_to_one_over_its_range() -> None:
    grid = torch.linspace(-30, 30, 20_001)
    actions = LaplaceActions(loc=torch.tensor([[[0.3]]]), log_scale=torch.tensor([[[-0.5]]]))
    density = actions.log_prob(grid[None, :, None].expand(1, -1, 1)).exp()
    assert torch.trapezoid(density, grid).item() == pytest.approx(1.0, abs=1e-4)


def test_each_row_draws_from_its_own_generator_as_if_alone() -> None:
    both = torch.Generator().manual_seed(1), torch.Generator().manual_seed(2)
    sampled = some_actions().sample(both).sampled
    ours = some_actions()
    second = LaplaceActions(loc=ours.loc[1:], log_scale=ours.log_scale[1:])
    assert torch.equal(second.sample(torch.Generator().manual_seed(2)).sampled[0], sampled[1])


def test_the_log_prob_of_bins_is_that_of_torch_distributions_and_sums_to_one() -> None:
    ours = some_tokens()
    theirs = torch.distributions.Categorical(logits=ours.log_probs)
    sampled = ours.sample(torch.Generator().manual_seed(0)).sampled
    torch.testing.assert_close(ours.log_prob(sampled), theirs.log_prob(sampled).sum(-1))
    torch.testing.assert_close(ours.log_prob(sampled[:, :2]), ours.log_prob(sampled)[:, :2])
    torch.testing.assert_close(ours.entropy(), theirs.entropy().sum(-1))
    alone = TokenActions(log_probs=ours.log_probs[:1, :1, :1].expand(1, 256, 1, 256))
    torch.testing.assert_close(alone.log_prob(torch.arange(256.0)[None, :, None]).exp().sum(), torch.tensor(1.0))


def test_bins_are_drawn_as_often_as_they_are_likely() -> None:
    count = 20_000
    probabilities = torch.zeros(256)
    probabilities[[0, 17, 200, 254]] = torch.tensor([0.5, 0.3, 0.15, 0.05])
    tokens = TokenActions(log_probs=probabilities.log().expand(1, 1, count, 256))
    sampled = tokens.sample(torch.Generator().manual_seed(0)).sampled.long().flatten()
    shares = torch.bincount(sampled, minlength=256) / count
    assert (shares - probabilities).abs().max() < 4 * 0.5 / math.sqrt(count)
    assert shares[probabilities == 0].sum() == 0


def test_a_bin_stands_for_its_middle() -> None:
    logits = torch.full((1, 1, 2, 256), -50.0)
    logits[0, 0, 0, 0] = logits[0, 0, 1, 200] = 50.0
    tokens = some_tokens(logits.flatten(2))
    width = 10 / 256
    expected = torch.tensor([[[-5 + width / 2, -5 + 200.5 * width]]])
    torch.testing.assert_close(tokens.mode(), expected)
    sample = tokens.sample(torch.Generator().manual_seed(0))
    torch.testing.assert_close(sample.actions, expected)
    assert sample.sampled.tolist() == [[[0.0, 200.0]]]


def test_cloning_bins_is_the_cross_entropy_with_the_bin_of_the_action_also_beyond_the_range() -> None:
    logits = torch.randn(1, 2, 2 * 256, generator=torch.Generator().manual_seed(1))
    target = torch.tensor([[[0.0, 7.0], [-5.1, 4.99]]])
    bins = torch.tensor([128, 255, 0, 255])
    expected = torch.nn.functional.cross_entropy(logits.reshape(4, 256), bins)
    loss = some_tokens(logits).loss(target, torch.ones(1, 2, dtype=torch.bool))
    torch.testing.assert_close(loss, expected)
    first = some_tokens(logits).loss(target, torch.tensor([[True, False]]))
    torch.testing.assert_close(first, torch.nn.functional.cross_entropy(logits.reshape(4, 256)[:2], bins[:2]))


@pytest.mark.parametrize(
    ("make", "size"),
    [(partial(LaplaceActions.from_parameters, min_log_scale=-5.0), 2), (TokenActions.from_parameters, 256)],
    ids=["laplace", "tokens"],
)
def test_the_mean_gradient_of_log_prob_over_draws_is_zero(
    make: Callable[[torch.Tensor], ActionDistribution], size: int
) -> None:
    """E[grad log p] = 0 for every distribution: log_prob and sample are of one and the same."""
    count = 20_000
    parameters = torch.randn(1, 1, size, generator=torch.Generator().manual_seed(0)).requires_grad_()
    actions = make(parameters.expand(count, 1, size))
    sampled = actions.sample(torch.Generator().manual_seed(1)).sampled
    (mean,) = torch.autograd.grad(actions.log_prob(sampled).mean(), parameters)
    assert mean.abs().max() < 5 / math.sqrt(count)
    (one,) = torch.autograd.grad(make(parameters).log_prob(sampled[:1]).sum(), parameters)
    assert one.abs().max() > 0.1


@pytest.mark.parametrize("share", [0.5, 0.03, 0.01, 1e-4, 1e-6])
def test_a_rare_command_is_cloned_and_decoded_as_what_was_recorded(share: float) -> None:
    """Such a share of the rows say +1 and the others -1: +1 is up to 1,000 standard deviations from the mean."""
    moved = {"mean": [0.0, 0.1, 2 * share - 1], "std": [0.5, 0.25, 2 * (share * (1 - share)) ** 0.5]}
    processor = Processor.from_statistics(WORLD_SPEC, STATISTICS | {"action": moved})
    model = tiny_vla(action_distribution="tokens", action_limits=processor.action_limits())
    recorded = torch.tensor([[[-1.0, 1.0, 1.0], [0.25, -0.5, -1.0], [1.0, 0.1, 1.0], [0.0, -1.0, -1.0]]])
    target, mask = processor.normalise_actions(recorded), torch.ones(1, 4, dtype=torch.bool)
    parameters = torch.zeros(1, 4, 3 * TokenActions.num_bins, requires_grad=True)
    (wanted,) = torch.autograd.grad(model.action_head.distribution(parameters).loss(target, mask), parameters)
    actions = model.action_head.distribution(-1e5 * wanted)  # has learned what it was shown perfectly
    half_a_bin = 1 / 255
    for found in (actions.mode(), actions.sample(torch.Generator().manual_seed(0)).actions):
        decoded = processor.decode(found)
        torch.testing.assert_close(decoded, recorded, atol=half_a_bin + 1e-5, rtol=0)
        at_ends = recorded.abs() == 1
        torch.testing.assert_close(decoded[at_ends], recorded[at_ends], atol=1e-5, rtol=0)


def test_a_model_of_before_keeps_its_bins() -> None:
    centre = TokenActions(log_probs=torch.zeros(1, 1, 1, 256)).mode().item()
    model = tiny_vla(action_distribution="tokens")
    of_before = model.action_head.distribution(torch.zeros(1, 1, 3 * 256)).mode()
    assert of_before.flatten().tolist() == [centre] * 3 == [pytest.approx(-5 + 5 / 256)] * 3
