"""Muon against the singular value decomposition, numbers worked out by hand, torch's own, and AdamW."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest
import torch
from sides_policy import sides_model, sides_processor
from sides_rollouts import rollouts
from torch import Tensor

from agent.algorithms.ppo import ppo_advantages, ppo_loss
from agent.algorithms.ppo_config import PPOConfig
from agent.algorithms.rollout_batch import decisions
from agent.algorithms.sft import fake_batch, sft_loss
from agent.algorithms.sft_config import SFTConfig
from agent.learning.config import LearnerConfig
from agent.learning.learner import Learner
from agent.learning.muon import Muon, is_hidden_matrix, orthogonalised
from vla_model.model import VLA
from vla_model.weights.config import FineTuning
from vla_model.weights.finetune import prepare

MUON = LearnerConfig(batch_size=8, num_updates=60, warmup_updates=2, optimizer="muon")
LOSS = partial(sft_loss, config=SFTConfig())


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def steps_of(shape: tuple[int, ...], seed: int = 0, *, count: int = 3) -> Tensor:
    """A weight of that shape after some steps of Muon on random gradients."""
    weight = torch.nn.Parameter(torch.ones(shape))
    optimizer = Muon([weight], lr=0.01, weight_decay=0.1)
    for step in range(count):
        weight.grad = randn(*shape, seed=100 * seed + step)
        optimizer.step()
    return weight.detach()


@pytest.mark.parametrize("shape", [(24, 24), (16, 40), (40, 16)])
def test_orthogonalising_keeps_the_singular_vectors_and_brings_the_values_near_1(shape: tuple[int, int]) -> None:
    left, _, right = torch.linalg.svd(randn(*shape), full_matrices=False)
    values = torch.linspace(1.0, 0.05, min(shape))
    found = orthogonalised((left * values @ right)[None])[0]
    turned = left.mT @ found @ right.mT  # diagonal where the singular vectors are the same
    assert turned.diagonal().min() > 0.65
    assert turned.diagonal().max() < 1.25
    assert (turned - turned.diagonal().diag()).abs().max() < 0.05


def test_a_step_of_one_row_is_the_one_worked_out_by_hand() -> None:
    weight = torch.nn.Parameter(torch.tensor([[1.0, 2.0]]))
    weight.grad = torch.tensor([[3.0, 4.0]])
    Muon([weight], lr=0.1, weight_decay=0.5).step()
    # The direction is the gradient's, 0.6 and 0.8. Its singular value, 1 at first, goes through
    # s -> 3.4445 s - 4.775 s^3 + 2.0315 s^5: 1, 0.7010, 1.1136, 0.7205, 1.0905, 0.6964.
    scale = 0.1 * 0.2 * math.sqrt(2) * 0.6964
    expected = torch.tensor([[0.95 - scale * 0.6, 1.90 - scale * 0.8]])
    torch.testing.assert_close(weight.detach(), expected, rtol=0, atol=3e-4)


@pytest.mark.parametrize("shape", [(16, 16), (8, 24), (24, 8)])
def test_matrices_are_stepped_as_by_torch(shape: tuple[int, int]) -> None:
    weight = torch.nn.Parameter(torch.ones(shape))
    optimizer = torch.optim.Muon([weight], lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for step in range(3):
        weight.grad = randn(*shape, seed=step)
        optimizer.step()
    ours, theirs = steps_of(shape) - 1, weight.detach() - 1
    assert float((ours - theirs).norm() / theirs.norm()) < 0.02  # torch's is in bfloat16 everywhere


def test_a_convolution_is_a_matrix_of_as_many_rows_as_outputs() -> None:
    assert torch.equal(steps_of((6, 2, 2, 2)).flatten(1), steps_of((6, 8)))


def test_stacked_experts_and_matrices_of_equal_shape_are_each_stepped_alone() -> None:
    together = [torch.nn.Parameter(torch.ones(shape)) for shape in ((3, 8, 12), (8, 12))]
    optimizer = Muon(together, lr=0.01, weight_decay=0.1)
    alone = [torch.nn.Parameter(torch.ones(8, 12)) for _ in range(4)]
    apart = [Muon([weight], lr=0.01, weight_decay=0.1) for weight in alone]
    for step in range(3):
        gradients = randn(4, 8, 12, seed=step)
        together[0].grad, together[1].grad = gradients[:3].clone(), gradients[3].clone()
        optimizer.step()
        for weight, gradient, each in zip(alone, gradients, apart, strict=True):
            weight.grad = gradient.clone()
            each.step()
    for ours, theirs in zip([*together[0].detach(), together[1].detach()], alone, strict=True):
        torch.testing.assert_close(ours, theirs.detach(), rtol=0, atol=1e-4)


def test_a_gradient_of_0_gives_no_step() -> None:
    weight = torch.nn.Parameter(torch.ones(4, 4))
    weight.grad = torch.zeros(4, 4)
    Muon([weight], lr=0.1, weight_decay=0.0).step()
    assert torch.equal(weight.detach(), torch.ones(4, 4))


def test_adamw_keeps_first_and_last_layers_tokens_routers_and_what_supervises() -> None:
    model = sides_model(value_head=True, history_length=1, foreseen_steps=[2], image_queries=2, vision_channels=16)
    kept = {name for name, p in model.named_parameters() if p.ndim >= 2 and not is_hidden_matrix(name, p)}
    assert kept == {
        *("queries", "ages", "backbone.decoder.embed_tokens.weight"),
        *(
            f"cameras.{camera}.{part}"
            for camera in ("front", "wrist")
            for part in ("positions", "stem.conv.weight", "heatmaps.weight", "resample.queries")
        ),
        *(f"action_head.layers.{i}.router.weight" for i in range(2)),
        "action_head.to_parameters.weight",
        *(f"{head}.{i}.weight" for head in ("localize_from_vision", "localize_from_queries") for i in (0, 2)),
        *(f"{head}.{i}.weight" for head in ("foresee_from_vision", "foresee_from_queries") for i in (0, 2)),
        *(f"value_head.layers.{i}.weight" for i in (0, 2, 4)),
    }


def test_of_a_flow_the_middle_is_muons_and_of_a_vision_transformer_its_layers() -> None:
    flow = sides_model(action_distribution="flow")
    last, encoder = "action_head.distribution.last.weight", "cameras.front.encoder.model."
    muons = {name for name, p in flow.named_parameters() if is_hidden_matrix(name, p)}
    assert "action_head.distribution.middle.weight" in muons
    assert last in dict(flow.named_parameters()).keys() - muons
    vision = sides_model(vision="vit", vision_patch_px=4, vision_layers=1, vision_channels=16)
    found = {n: is_hidden_matrix(n, p) for n, p in vision.named_parameters() if n.startswith(encoder) and p.ndim >= 2}
    assert found == {name: name.startswith(f"{encoder}layers.") for name in found}
    assert len(set(found.values())) == 2


def adapted(model: VLA, *, towers: bool = True) -> VLA:
    torch.manual_seed(1)
    prepare(model, FineTuning(mode="lora", lora_rank=2, towers=towers))
    return model


@pytest.mark.parametrize("towers", [False, True])
def test_of_a_model_with_lora_muon_steps_trained_matrices_outside_the_decoder(towers: bool) -> None:
    model = adapted(sides_model(), towers=towers)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with closing(Learner(model, MUON)) as learner:
        learned(learner, range(2))
        by_muon = {id(p) for p, state in learner._optimizers._by_name["muon"].state.items() if "momentum" in state}
    names = {name for name, p in model.named_parameters() if id(p) in by_muon}
    assert {name for name in names if name.startswith("action_head.")} == {
        f"action_head.layers.{i}.{part}" for i in range(2) for part in ("gate_up", "down")
    }
    assert any(name.startswith("cameras.") for name in names) is towers
    assert not any(name.startswith("backbone.") for name in names)
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert names < moved
    assert {name for name in moved if name.startswith("backbone.")} == {name for name in before if ".lora_" in name}


def learned(learner: Learner[VLA], updates: range) -> list[float]:
    """The losses of these updates, each on a batch of its own."""
    return [learner.update(fake_batch(learner.model.config, 8, update), LOSS)["loss/total"] for update in updates]


@pytest.mark.parametrize("make_model", [sides_model, lambda: adapted(sides_model())], ids=["whole", "with lora"])
def test_a_resumed_learner_continues_to_identical_numbers(make_model: Callable[[], VLA], tmp_path: Path) -> None:
    straight, first, second = (Learner(make_model(), MUON) for _ in range(3))
    expected = learned(straight, range(6))
    learned(first, range(4))
    first.save(tmp_path)
    second.load(tmp_path)
    assert learned(second, range(4, 6)) == expected[4:]
    straight_state, second_state = straight._state(), second._state()
    assert straight_state.keys() == second_state.keys()
    assert any(name.startswith("muon.") for name in second_state)
    assert all(torch.equal(straight_state[name], second_state[name]) for name in straight_state)
    for learner in (straight, first, second):
        learner.close()


@pytest.mark.parametrize("saved", ["adamw", "muon"])
def test_the_state_of_another_optimiser_is_refused(saved: str, tmp_path: Path) -> None:
    configs = {"adamw": replace(MUON, optimizer="adamw"), "muon": MUON}
    with closing(Learner(sides_model(), configs.pop(saved))) as learner:
        learned(learner, range(1))
        learner.save(tmp_path)
    (other,) = configs.values()
    with closing(Learner(sides_model(), other)) as learner, pytest.raises(ValueError, match="not of this training"):
        learner.load(tmp_path)


def test_a_learner_that_begins_anew_is_a_new_learner_of_its_weights() -> None:
    renewed, new = Learner(sides_model(), MUON), Learner(sides_model(), MUON)
    learned(renewed, range(3))
    new.model.load_state_dict(renewed.model.state_dict())
    new.average.load_state_dict(renewed.model.state_dict())
    renewed.reset_optimizer()
    assert learned(renewed, range(2)) == learned(new, range(2))
    renewed.close()
    new.close()


class Map(torch.nn.Module):
    """y = W x, from W = 0."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(32, 32, bias=False)
        torch.nn.init.zeros_(self.layer.weight)


@dataclass(frozen=True)
class Points:
    x: Tensor
    y: Tensor

    def part(self, index: int, count: int) -> Points:
        return Points(self.x[index::count], self.y[index::count])


def squared_error(model: Map, batch: Points) -> tuple[Tensor, dict[str, Tensor]]:
    with torch.autocast("cpu", enabled=False):
        loss = (model.layer(batch.x) - batch.y).square().mean()
    return loss, {"loss/total": loss.detach()}


def turn(seed: int) -> Tensor:
    """A random orthogonal matrix."""
    return torch.linalg.qr(randn(32, 32, seed=seed))[0]


def test_a_batch_whose_inputs_differ_little_in_some_directions_is_learned_by_heart_faster_than_by_adamw() -> None:
    x = turn(0) * torch.logspace(1.25, -0.75, 32)[:, None] @ turn(1)
    batch, losses = Points(x, x @ turn(2)), {}
    for optimizer in ("adamw", "muon"):
        config = replace(MUON, optimizer=optimizer, num_updates=100, learning_rate=0.03, weight_decay=0.0)
        with closing(Learner(Map(), config)) as learner:
            losses[optimizer] = [learner.update(batch, squared_error)["loss/total"] for _ in range(100)][-1]
    assert losses["muon"] < losses["adamw"] / 20, losses


def test_the_ratios_of_ppo_begin_at_1_and_the_warm_up_leaves_the_policy_alone() -> None:
    batch = decisions(ppo_advantages(rollouts(4), PPOConfig()), sides_processor())
    with closing(Learner(sides_model(value_head=True), replace(MUON, ema_decay=0.0, warmup_updates=0))) as learner:
        before = {name: value.clone() for name, value in learner.model.state_dict().items()}
        learner.update(batch, partial(ppo_loss, config=PPOConfig(), only_value=True))
        after = learner.model.state_dict()
        assert all(name.startswith("value_head.") for name in before if not torch.equal(before[name], after[name]))
        loss = partial(ppo_loss, config=PPOConfig())
        log_ratios = [learner.update(batch, loss)["policy/max_log_ratio"] for _ in range(2)]
    assert log_ratios[0] < 1e-5
    assert log_ratios[1] > 1e-3
