"""Noise that lasts: each number is distributed as without, and resembles the one for the action before."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tiny_model import tiny_processor, tiny_vla
from torch import Tensor

from vla_model.heads.distributions import LaplaceActions, TokenActions
from vla_model.heads.noise import CorrelatedNoise
from vla_model.policy import VLAPolicy

EPISODES = 4000


def executed(sampler: Callable[..., Tensor], correlation: float, n_action_steps: int | None) -> Tensor:
    """What two decisions of many episodes execute of chunks of 4 actions of 1 number, [episodes, steps]."""
    found = []
    for seed in range(EPISODES):
        noise = CorrelatedNoise(torch.Generator().manual_seed(seed), correlation, n_action_steps)
        found.append(torch.cat([noise(sampler, (4, 1))[: n_action_steps or 4] for _ in range(2)])[:, 0])
    return torch.stack(found)


@pytest.mark.parametrize("n_action_steps", [2, 3, None])
def test_the_correlation_decays_with_executed_actions_also_across_decisions(n_action_steps: int | None) -> None:
    found = executed(torch.randn, 0.6, n_action_steps)
    lag = torch.arange(found.shape[1])
    expected = 0.6 ** (lag[:, None] - lag).abs().float()
    torch.testing.assert_close(found.T.cov(), expected, atol=0.08, rtol=0)


def test_uniform_numbers_stay_uniform_and_below_one() -> None:
    found = executed(torch.rand, 0.9, 2)
    ranks = (torch.arange(EPISODES) + 0.5) / EPISODES
    for step in found.T:
        distance = (step.sort().values - ranks).abs().max()
        assert distance < 1.63 / EPISODES**0.5, "Kolmogorov-Smirnov at 1 %"
    assert found.min() >= 0
    assert found.max() < 1


def test_an_extreme_number_is_still_below_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "randn", lambda shape, **_: torch.full(shape, 9.0))
    noise = CorrelatedNoise(torch.Generator(), 0.5, None)
    sampled = noise(torch.rand, (2, 1))
    assert sampled.max() < 1


def test_more_actions_than_a_chunk_has_cannot_be_executed_of_it() -> None:
    with pytest.raises(ValueError, match=r"n_action_steps must be within 1..4, the chunk's length, got 5"):
        VLAPolicy(tiny_vla(), tiny_processor(), sample=True, noise_correlation=0.5, n_action_steps=5)


def test_distributions_draw_from_it_and_score_each_action_as_before() -> None:
    def noise() -> list[CorrelatedNoise]:
        return [CorrelatedNoise(torch.Generator().manual_seed(seed), 0.99, None) for seed in range(3)]

    laplace = LaplaceActions(loc=torch.zeros(3, 8, 2), log_scale=torch.zeros(3, 8, 2))
    sampled = laplace.sample(noise()).sampled
    assert sampled.diff(dim=1).abs().mean() < 0.3 * sampled.abs().mean(), "successive actions lie close together"
    alone = torch.distributions.Laplace(0.0, 1.0).log_prob(sampled).sum(-1)
    torch.testing.assert_close(laplace.log_prob(sampled), alone)
    tokens = TokenActions(log_probs=torch.full((3, 8, 2, TokenActions.num_bins), -5.545177))
    bins = tokens.sample(noise()).sampled
    assert bins.min() >= 0
    assert bins.max() < TokenActions.num_bins
    assert bins.diff(dim=1).abs().mean() < 30, "of 256"
