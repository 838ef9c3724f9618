"""Means over a batch of which this is one part."""

from __future__ import annotations

import torch

from vla_model.heads.distributions import masked_mean
from vla_model.numerics.means import gathering, mean, of_all_parts, whole_mean


def test_without_a_context_a_batch_is_whole() -> None:
    assert mean(torch.tensor(6.0), torch.tensor(4)) == 1.5
    assert mean(torch.tensor(0.0), torch.tensor(0)) == 0.0
    assert of_all_parts(torch.ones(3)).shape == (1, 3)


def test_a_part_reports_its_sum_over_the_mean_weight_of_all_parts() -> None:
    """Sums 6 and 2 of 4 and 1 things: 8 / 5 is the mean of 6 / 2.5 and 2 / 2.5."""
    with gathering(lambda _: torch.tensor([4.0, 1.0])):
        assert mean(torch.tensor(6.0), torch.tensor(4)) == 6 / 2.5
        assert mean(torch.tensor(2.0), torch.tensor(1)) == 2 / 2.5
        mask = torch.tensor([[True, True], [True, True]])
        assert masked_mean(torch.full((2, 2, 1), 1.5), mask) == 6 / 2.5
    with gathering(lambda value: torch.stack([value, value + 2])):
        assert whole_mean(torch.tensor([6.0]), torch.tensor(3)).tolist() == [14 / 8]
    assert mean(torch.tensor(6.0), torch.tensor(4)) == 1.5


def test_no_gradient_passes_to_the_weight() -> None:
    total, weight = torch.tensor(6.0, requires_grad=True), torch.tensor(4.0, requires_grad=True)
    mean(total, weight).backward()
    assert total.grad == 0.25
    assert weight.grad is None
