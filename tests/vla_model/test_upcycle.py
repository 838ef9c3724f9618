"""One trained expert becomes several, and nothing changes until they learn."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_model import tiny_vla

from vla_model.heads.moe import MixtureOfExperts
from vla_model.inputs.inputs import fake_inputs
from vla_model.upcycle import upcycle


@pytest.mark.parametrize("changes", [{}, {"shared_expert": True, "decoupled_weights": True, "balancing_rate": 0.1}])
def test_right_after_upcycling_the_actions_are_identical(changes: dict[str, Any]) -> None:
    dense = tiny_vla(num_experts=1, top_k_experts=1, **changes)
    for name, weight in dense.named_parameters():
        if name.endswith("router.adapter"):
            torch.nn.init.normal_(weight, std=0.1)
    grown = upcycle(dense, num_experts=4, top_k_experts=2).eval()
    inputs = fake_inputs(dense.config, 5)
    ours, theirs = dense(inputs), grown(inputs)
    torch.testing.assert_close(theirs.actions.loc, ours.actions.loc, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(theirs.actions.log_scale, ours.actions.log_scale, atol=1e-6, rtol=1e-6)
    assert (grown.config.num_experts, grown.config.top_k_experts, dense.config.num_experts) == (4, 2, 1)
    assert len({tuple(row) for row in theirs.routing[0].experts.flatten(0, 1).tolist()}) > 1


def test_copies_part_when_they_learn_and_the_dense_model_keeps_its_weights() -> None:
    dense = tiny_vla(num_experts=1, top_k_experts=1)
    before = {name: tensor.clone() for name, tensor in dense.state_dict().items()}
    grown = upcycle(dense, num_experts=4, top_k_experts=2)
    optimizer = torch.optim.SGD(grown.parameters(), lr=0.1)
    grown(fake_inputs(dense.config, 8)).actions.loc.square().sum().backward()
    optimizer.step()
    layer = grown.action_head.layers[0]
    assert isinstance(layer, MixtureOfExperts)
    assert (layer.down[0] - layer.down[1]).abs().max() > 1e-6
    for name, tensor in dense.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_several_experts_cannot_be_upcycled() -> None:
    with pytest.raises(ValueError, match="one expert per layer can be upcycled, not one of 4"):
        upcycle(tiny_vla(), 8, 2)
