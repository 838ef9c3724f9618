"""The loss of behaviour cloning."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from sides_policy import sides_model

from agent.sft import SFTConfig, fake_batch, sft_loss


def test_the_loss_is_the_weighted_sum_of_its_terms() -> None:
    model = sides_model(foreseen_steps=[2, 8])
    config = SFTConfig(
        localization_weight=2.0,
        pointing_weight=0.7,
        foresight_weight=5.0,
        load_balancing_weight=0.1,
        router_z_weight=0.3,
    )
    loss, terms = sft_loss(model, fake_batch(model.config, 4), config)
    weights = {"action": 1.0, "localization": 2.0, "pointing": 0.7, "foresight": 5.0}
    weights |= {"load_balancing": 0.1, "router_z": 0.3}
    assert loss.item() == pytest.approx(sum(w * terms[f"loss/{name}"].item() for name, w in weights.items()), rel=1e-5)
    assert terms["loss/foresight"] > 0


def test_what_is_to_come_is_learned_and_not_where_it_is_not_known() -> None:
    model = sides_model(foreseen_steps=[2, 8]).train()
    batch = fake_batch(model.config, 8)
    unknown = replace(batch, future_known=torch.zeros(8, dtype=torch.bool))
    only = SFTConfig(foresight_weight=10.0)
    assert sft_loss(model, unknown, only)[1]["loss/foresight"] == 0.0
    optimizer, seen = torch.optim.Adam(model.parameters(), lr=1e-2), []
    for _ in range(40):
        loss, terms = sft_loss(model, batch, only)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen.append(float(terms["loss/foresight"]))
    assert seen[-1] < 0.3 * seen[0]


def test_a_model_that_foresees_nothing_is_taught_nothing_of_it() -> None:
    model = sides_model()
    _, terms = sft_loss(model, fake_batch(model.config, 4), SFTConfig())
    assert terms["loss/foresight"] == 0.0
