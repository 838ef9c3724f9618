"""The action head: its layers, and the distributions it can end in."""

from __future__ import annotations

import pytest
import torch
from tiny_model import tiny_config

from vla_model.heads.action_head import DISTRIBUTIONS, ActionHead
from vla_model.heads.distributions import LaplaceActions


def test_head_stacks_its_layers_and_reports_the_routing_of_each() -> None:
    torch.manual_seed(0)
    head = ActionHead(tiny_config(moe_layers=3, num_experts=5, top_k_experts=2))
    actions, routing = head(torch.randn(6, 4, 32))
    assert isinstance(actions, LaplaceActions)
    assert actions.loc.shape == actions.log_scale.shape == (6, 4, 3)
    assert [(r.logits.shape, r.experts.shape) for r in routing] == [((6, 4, 5), (6, 4, 2))] * 3


def test_an_unknown_distribution_is_refused_with_those_that_exist() -> None:
    with pytest.raises(ValueError, match=r"'gauss' does not exist; distributions: laplace, tokens, flow"):
        ActionHead(tiny_config(action_distribution="gauss"))


def test_weights_keep_the_names_under_which_they_were_saved() -> None:
    names = {name for name in ActionHead(tiny_config(moe_layers=1)).state_dict() if not name.startswith("layers.")}
    assert names == {"norms.0.weight", "last_norm.weight", "to_parameters.weight", "to_parameters.bias"}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_every_distribution_gives_a_chunk_of_actions_in_float32_even_under_autocast(name: str) -> None:
    torch.manual_seed(0)
    head = ActionHead(tiny_config(action_distribution=name))
    with torch.autocast("cpu", torch.bfloat16):
        actions, _ = head(torch.randn(6, 4, 32))
        sample = actions.sample([torch.Generator().manual_seed(row) for row in range(6)])
        log_prob, entropy = actions.log_prob(sample.sampled), actions.entropy()
    assert actions.mode().shape == sample.actions.shape == (6, 4, 3)
    assert log_prob.shape == entropy.shape == (6, 4)
    assert {x.dtype for x in (actions.mode(), sample.actions, sample.sampled, log_prob, entropy)} == {torch.float32}


def test_the_scale_is_fitted_by_the_output_layer_alone_so_only_the_error_trains_the_layers_before_it() -> None:
    torch.manual_seed(0)
    head = ActionHead(tiny_config())
    hidden, target, mask = torch.randn(6, 4, 32), torch.randn(6, 4, 3), torch.ones(6, 4, dtype=torch.bool)
    before = [p for name, p in head.named_parameters() if not name.startswith("to_parameters")]

    def gradients(error_alone: bool) -> tuple[torch.Tensor, ...]:
        actions, _ = head(hidden)
        assert isinstance(actions, LaplaceActions)
        loss = (actions.loc - target).abs().mean() if error_alone else actions.loss(target, mask)
        return torch.autograd.grad(loss, [*before, head.to_parameters.weight], allow_unused=True)

    *of_error, error_weight = gradients(True)
    *of_loss, loss_weight = gradients(False)
    torch.testing.assert_close(of_loss, of_error, rtol=0, atol=0)
    assert not error_weight[1::2].any()  # rows of the scale
    torch.testing.assert_close(loss_weight[::2], error_weight[::2], rtol=0, atol=0)
    assert loss_weight[1::2].abs().sum(-1).min() > 0


def test_a_distribution_scored_by_its_likelihood_trains_all_layers_by_its_scale() -> None:
    torch.manual_seed(0)
    head = ActionHead(tiny_config())
    actions, _ = head(torch.randn(6, 4, 32))
    assert isinstance(actions, LaplaceActions)
    (gradient,) = torch.autograd.grad(actions.log_scale.sum(), head.last_norm.weight)
    assert gradient.abs().max() > 0
