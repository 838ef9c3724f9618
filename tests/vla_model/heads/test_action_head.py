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
