"""Shrink and perturb: the share of weights that is kept, and excluded weights."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest
import torch
from sides_policy import sides_model

from agent.algorithms.shrink_perturb import (
    ShrinkPerturbConfig,
    check_shrink_perturb,
    scheduled_updates,
    shrink_and_perturb,
)
from agent.learning.config import LearnerConfig
from agent.learning.learner import Learner
from vla_model.config import VLAConfig
from vla_model.model import VLA
from vla_model.weights.config import FineTuning


def shrunk_and_perturbed(keep: float) -> tuple[VLA, Learner[VLA], VLA]:
    """The first model, the learner and the new model; the first weight of all is frozen."""
    model = sides_model()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(1.0)
    next(model.parameters()).requires_grad_(False)
    before = VLA(model.config)
    before.load_state_dict(model.state_dict())
    learner = Learner(model, LearnerConfig())
    with closing(learner):
        shrink_and_perturb(learner, keep, seed=7)
    torch.manual_seed(7)
    return before, learner, VLA(model.config)


@pytest.mark.parametrize("keep", [0.0, 0.25, 1.0])
def test_trained_weights_move_towards_initial_weights(keep: float) -> None:
    before, learner, new = shrunk_and_perturbed(keep)
    pairs = list(zip(before.parameters(), learner.model.parameters(), new.parameters(), strict=True))
    torch.testing.assert_close(pairs[0][1], pairs[0][0])
    for old, now, fresh in pairs[1:]:
        torch.testing.assert_close(now, keep * old + (1 - keep) * fresh)
    for average, now in zip(learner.average.parameters(), learner.model.parameters(), strict=True):
        torch.testing.assert_close(average, now)


def test_the_balance_of_experts_is_shrunk_and_perturbed_with_them() -> None:
    learner = Learner(sides_model(balancing_rate=0.1), LearnerConfig())
    biases = [buffer for name, buffer in learner.model.named_buffers() if name.endswith("router.bias")]
    for bias in biases:
        bias.fill_(0.4)
    with closing(learner):
        shrink_and_perturb(learner, 0.25, seed=7)
    assert biases
    for bias in biases:
        torch.testing.assert_close(bias, torch.full_like(bias, 0.1))


def test_the_global_random_state_is_unchanged() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    with closing(Learner(sides_model(), LearnerConfig())) as learner:
        torch.manual_seed(3)
        shrink_and_perturb(learner, 0.5, seed=1)
    torch.testing.assert_close(torch.rand(2), expected)


@pytest.mark.parametrize(
    ("keep", "iteration", "mode", "model", "message"),
    [
        (0.5, 6, "full", {}, "iteration is 6, expected iteration 1 to 5"),
        (0.5, 1, "lora", {}, "mode 'lora' all weights must be kept"),
        (0.5, 1, "full", {"pretrained": True}, "pretrained weights"),
        (0.5, 1, "full", {"vision": "pretrained"}, "pretrained weights"),
    ],
)
def test_models_that_cannot_be_reinitialised_are_refused(
    keep: float, iteration: int, mode: Any, model: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        check_shrink_perturb(
            ShrinkPerturbConfig(keep=keep, iteration=iteration), 5, FineTuning(mode=mode), VLAConfig(**model)
        )


def test_all_weights_of_any_model_may_be_kept() -> None:
    check_shrink_perturb(ShrinkPerturbConfig(iteration=9), 5, FineTuning(mode="lora"), VLAConfig(pretrained=True))


def test_schedules_end_and_begin_at_shrink_and_perturb() -> None:
    """Ten iterations of 300 updates; shrunk and perturbed before the fourth, which then has 500."""
    assert scheduled_updates(ShrinkPerturbConfig(), 300, 10, 9) == 3000
    config = ShrinkPerturbConfig(keep=0.0, iteration=4, updates=500)
    assert [scheduled_updates(config, 300, 10, i) for i in (0, 2, 3, 9)] == [900, 900, 2300, 2300]
