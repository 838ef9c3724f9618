"""The learner against torch's own optimiser, and against itself after an interruption."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from agent.learning.config import LearnerConfig, learning_rate_share
from agent.learning.learner import STATE_FILE, Learner
from agent.runs.checks import check_config
from vla_model.heads.moe import MixtureOfExperts


class Line(torch.nn.Module):
    """y = w x + b: the learner needs nothing but weights."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


@dataclass(frozen=True)
class Points:
    x: Tensor
    y: Tensor

    def part(self, index: int, count: int) -> Points:
        return Points(self.x[index::count], self.y[index::count])


def points(update: int, rows: int = 8) -> Points:
    generator = torch.Generator().manual_seed(update)
    x = torch.randn(rows, 3, generator=generator)
    return Points(x, x @ torch.tensor([[1.0], [-2.0], [0.5]]) + 0.3)


def squared_error(model: torch.nn.Module, batch: Points) -> tuple[Tensor, dict[str, Tensor]]:
    with torch.autocast("cpu", enabled=False):
        loss = (model(batch.x) - batch.y).square().mean()
    return loss, {"loss/total": loss.detach()}


CONFIG = LearnerConfig(batch_size=8, num_updates=50, learning_rate=0.05, warmup_updates=5, weight_decay=0.0)


def weights(learner: Learner[Line]) -> list[Tensor]:
    return [p.detach().clone() for p in learner.model.parameters()]


def test_two_threads_take_the_same_step_as_one_pass_over_the_whole_batch() -> None:
    learners = [Learner(Line(), replace(CONFIG, num_parts=n)) for n in (1, 2)]
    for learner in learners:
        for update in range(3):
            learner.update(points(update), squared_error)
    for one, two in zip(weights(learners[0]), weights(learners[1]), strict=True):
        torch.testing.assert_close(one, two)


def test_an_update_is_adamw_with_the_scheduled_rate() -> None:
    learner, reference = Learner(Line(), CONFIG), Line()
    optimizer = torch.optim.AdamW(reference.parameters(), lr=1.0, betas=(0.9, 0.98), weight_decay=0.0)
    for update in range(4):
        learner.update(points(update), squared_error)
        optimizer.param_groups[0]["lr"] = CONFIG.learning_rate * learning_rate_share(update, CONFIG)
        optimizer.zero_grad()
        squared_error(reference, points(update))[0].backward()
        torch.nn.utils.clip_grad_norm_(reference.parameters(), CONFIG.max_grad_norm)
        optimizer.step()
    for ours, theirs in zip(weights(learner), reference.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs.detach())


def test_a_resumed_learner_continues_to_identical_numbers(tmp_path: Path) -> None:
    straight, first, second = (Learner(Line(), CONFIG) for _ in range(3))
    for update in range(10):
        straight.update(points(update), squared_error)
    for update in range(6):
        first.update(points(update), squared_error)
    first.save(tmp_path)
    second.load(tmp_path)
    for update in range(second.num_updates_done, 10):
        second.update(points(update), squared_error)
    assert all(torch.equal(a, b) for a, b in zip(weights(straight), weights(second), strict=True))
    assert all(
        torch.equal(a, b) for a, b in zip(straight.average.parameters(), second.average.parameters(), strict=True)
    )


def test_a_reset_learner_equals_a_new_one_with_its_weights() -> None:
    renewed = Learner(Line(), CONFIG)
    for update in range(6):
        renewed.update(points(update), squared_error)
    new = Learner(Line(), CONFIG)
    new.model.load_state_dict(renewed.model.state_dict())
    new.average.load_state_dict(renewed.model.state_dict())
    renewed.reset_optimizer()
    for update in range(3):
        assert renewed.update(points(update), squared_error) == new.update(points(update), squared_error)
    assert all(torch.equal(a, b) for a, b in zip(weights(renewed), weights(new), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(renewed.average.parameters(), new.average.parameters(), strict=True))


def test_the_moving_average_follows_the_weights() -> None:
    learner = Learner(Line(), CONFIG)
    start = weights(learner)
    for update in range(40):
        learner.update(points(update), squared_error)
    for first, average, now in zip(start, learner.average.parameters(), weights(learner), strict=True):
        assert (average - now).norm() < (first - now).norm()
        assert not torch.equal(average, now)


def test_a_gradient_that_is_not_finite_stops_training_and_changes_nothing() -> None:
    learner = Learner(Line(), CONFIG)
    before = weights(learner)
    broken = Points(torch.full((8, 3), torch.nan), torch.zeros(8, 1))
    with pytest.raises(FloatingPointError, match="update 0"):
        learner.update(broken, squared_error)
    assert all(torch.equal(a, b) for a, b in zip(before, weights(learner), strict=True))


def test_weights_that_are_not_finite_are_named() -> None:
    learner = Learner(Line(), CONFIG)
    learner.update(points(0), squared_error)
    learner.check_finite()
    learner.average.layer.weight.data[0, 1] = torch.inf
    with pytest.raises(FloatingPointError, match=r"after update 1 average\.layer\.weight is not finite, so it is not"):
        learner.check_finite()


def test_a_loss_that_is_not_finite_stops_training_though_its_gradient_is() -> None:
    learner = Learner(Line(), CONFIG)
    before = weights(learner)

    def infinite(model: torch.nn.Module, batch: Points) -> tuple[Tensor, dict[str, Tensor]]:
        loss, _ = squared_error(model, batch)
        return loss + torch.inf, {"loss/total": (loss + torch.inf).detach()}

    with pytest.raises(FloatingPointError, match="in update 0 loss/total is inf"):
        learner.update(points(0), infinite)
    assert all(torch.equal(a, b) for a, b in zip(before, weights(learner), strict=True))


def test_a_batch_smaller_than_num_parts_has_one_part_per_row() -> None:
    learners = [Learner(Line(), replace(CONFIG, num_parts=n)) for n in (1, 4)]
    for learner in learners:
        learner.update(points(0, rows=1), squared_error)
    for one, four in zip(weights(learners[0]), weights(learners[1]), strict=True):
        torch.testing.assert_close(one, four)


def test_the_learning_rate_warms_up_linearly_and_decays_along_a_cosine() -> None:
    config = LearnerConfig(num_updates=110, warmup_updates=10, final_lr_share=0.1)
    assert learning_rate_share(0, config) == pytest.approx(0.1)
    assert learning_rate_share(9, config) == pytest.approx(1.0)
    assert learning_rate_share(60, config) == pytest.approx(0.55)
    assert learning_rate_share(110, config) == pytest.approx(0.1)


def test_without_num_updates_the_learning_rate_follows_the_progress() -> None:
    config = LearnerConfig(warmup_updates=10, final_lr_share=0.1)
    assert learning_rate_share(9, config, 0.5) == pytest.approx(1.0)
    assert [learning_rate_share(500, config, progress) for progress in (0.0, 0.5, 1.0)] == pytest.approx([1, 0.55, 0.1])
    learner = Learner(Line(), replace(CONFIG, num_updates=None, warmup_updates=0, final_lr_share=0.1))
    learner.schedule(progress=0.5)
    assert learner.update(points(0), squared_error)["learner/learning_rate"] == pytest.approx(0.55 * 0.05)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_updates": 100}, "rises for learner.warmup-updates, 200, and the run makes only 100 updates"),
        ({"max_grad_norm": -1.0}, "max-grad-norm is -1.0"),
        ({"final_lr_share": -1.0}, "final-lr-share is -1.0"),
        ({"weight_decay": -1.0}, "weight-decay is -1.0"),
        ({"value_rate": -1.0}, "value-rate is -1.0"),
        ({"muon_rate": 0.0}, "muon-rate is 0.0"),
        ({"optimizer": "sgd"}, "optimizer is 'sgd'"),
        ({"learning_rate": float("nan")}, "learning-rate is nan"),
        ({"ema_decay": float("nan")}, "ema-decay is nan"),
        ({"ema_decay": 1.0}, "ema-decay is 1.0"),
        ({"num_updates": 0}, "num-updates is 0"),
        ({"batch_size": 0}, "batch-size is 0"),
        ({"batch_size": 4, "num_parts": 8}, "a batch of 4 cannot be computed in 8 parts"),
        ({"batch_size": 9, "num_processes": 2}, "num-processes is 2, expected a divisor of the batch, 9"),
    ],
)
def test_invalid_learner_settings_are_refused(wrong: dict[str, Any], message: str) -> None:
    check_config(LearnerConfig())
    with pytest.raises(ValueError, match=message):
        check_config(replace(LearnerConfig(), **wrong))


def test_a_folder_without_the_learners_state_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"learner\.safetensors"):
        Learner(Line(), CONFIG).load(tmp_path)


class Mixture(Line):
    """A line behind experts that are balanced."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = MixtureOfExperts(3, num_experts=4, top_k_experts=1, balancing_rate=0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.experts(x))


def test_an_update_moves_expert_biases_once_in_the_weights_and_the_average() -> None:
    learner = Learner(Mixture(), replace(CONFIG, num_parts=2))
    batch = points(0)
    experts = learner.model.experts.forward_with_routing(batch.x)[1].experts
    counts = experts.flatten().bincount(minlength=4).float()
    learner.update(batch, squared_error)
    for model in (learner.model, learner.average):
        bias = model.experts.router.bias
        assert bias is not None
        torch.testing.assert_close(bias, 0.5 * (2.0 - counts).sign())


def test_a_refused_update_changes_no_expert_bias() -> None:
    undisturbed, disturbed = (Learner(Mixture(), CONFIG) for _ in range(2))
    one_sided = Points(points(0).x.abs() + 9.0, torch.full((8, 1), torch.nan))
    with pytest.raises(FloatingPointError):
        disturbed.update(one_sided, squared_error)
    for learner in (undisturbed, disturbed):
        learner.update(points(1), squared_error)
    biases = [learner.model.experts.router.bias for learner in (undisturbed, disturbed)]
    assert biases[0] is not None
    assert biases[1] is not None
    assert torch.equal(biases[0], biases[1])
    assert biases[0].any()


def test_a_state_that_was_damaged_or_is_of_another_model_is_refused(tmp_path: Path) -> None:
    learner = Learner(Line(), CONFIG)
    learner.update(points(0), squared_error)
    learner.save(tmp_path)
    path = tmp_path / STATE_FILE
    tensors = load_file(path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 64
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{STATE_FILE} in .* is damaged: \w"):
        Learner(Line(), CONFIG).load(tmp_path)
    save_file(tensors | {"optimizer.0.exp_avg": torch.full((1, 3), torch.nan)}, path)
    with pytest.raises(ValueError, match=r"not finite: optimizer\.0\.exp_avg"):
        Learner(Line(), CONFIG).load(tmp_path)
    save_file({name: tensor for name, tensor in tensors.items() if name != "average.layer.bias"}, path)
    with pytest.raises(ValueError, match=rf"{STATE_FILE} is not of this training's model"):
        Learner(Line(), CONFIG).load(tmp_path)
    path.write_bytes(content[:40])
    with pytest.raises(ValueError, match=rf"{STATE_FILE} in .* is broken"):
        Learner(Line(), CONFIG).load(tmp_path)
