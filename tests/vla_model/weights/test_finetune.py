"""Fine-tuning: which weights learn, adapters that begin as nothing, and merging."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from families import toy_configs
from tiny_model import tiny_config, tiny_vla

from vla_model.inputs.inputs import fake_inputs
from vla_model.model import VLA
from vla_model.weights.config import FineTuning
from vla_model.weights.finetune import merged_state_dict, prepare

LORA = FineTuning(mode="lora", lora_rank=2, lora_alpha=6)


def prepared(fine_tuning: FineTuning) -> VLA:
    model = tiny_vla(value_head=True)
    prepare(model, fine_tuning)
    return model


def learning(model: VLA) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def shake(model: VLA) -> VLA:
    """Change everything that learns, as training would."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model


def actions(model: VLA) -> torch.Tensor:
    with torch.inference_mode():
        return model(fake_inputs(tiny_config(), 5)).actions.mode()


def test_full_trains_everything_and_head_only_the_heads() -> None:
    everything = {name for name, _ in tiny_vla(value_head=True).named_parameters()}
    assert learning(prepared(FineTuning())) == everything
    heads = {name for name in everything if name.startswith(("action_head.", "value_head."))}
    assert learning(prepared(FineTuning(mode="head"))) == heads


def test_lora_trains_the_heads_and_two_small_matrices_per_layer_of_the_decoder() -> None:
    heads, with_lora = learning(prepared(FineTuning(mode="head"))), prepared(LORA)
    assert heads < learning(with_lora)
    added = {name: p.shape for name, p in with_lora.named_parameters() if name in learning(with_lora) - heads}
    assert len(added) == 2 * 7 * 2  # A and B, of seven linear layers, in each of two blocks
    assert all(name.startswith("backbone.decoder.layers.") and 2 in shape for name, shape in added.items())


@pytest.mark.parametrize("fine_tuning", [LORA, FineTuning(mode="head")])
def test_with_towers_everything_around_the_decoder_is_trained_too(fine_tuning: FineTuning) -> None:
    around = {name for name, _ in tiny_vla(value_head=True).named_parameters() if not name.startswith("backbone.")}
    learned = learning(prepared(replace(fine_tuning, towers=True)))
    assert learned == around | learning(prepared(fine_tuning))


@pytest.mark.parametrize("fine_tuning", [FineTuning(), LORA, FineTuning(mode="head")])
def test_a_frozen_router_is_not_trained_in_any_mode(fine_tuning: FineTuning) -> None:
    free = learning(prepared(fine_tuning))
    frozen = learning(prepared(replace(fine_tuning, freeze_router=True)))
    assert free - frozen == {f"action_head.layers.{layer}.router.weight" for layer in (0, 1)}


def test_untrained_adapters_change_nothing() -> None:
    assert torch.equal(actions(prepared(LORA)), actions(tiny_vla(value_head=True)))


@pytest.mark.parametrize("fine_tuning", [LORA, FineTuning(mode="head", freeze_router=True)])
def test_a_step_changes_all_trained_weights_and_no_others(fine_tuning: FineTuning) -> None:
    model = shake(prepared(fine_tuning))
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    output = model(fake_inputs(tiny_config(), 16))
    target = torch.randn(16, 4, 3, generator=torch.Generator().manual_seed(2))
    loss = output.actions.loss(target, torch.ones(16, 4, dtype=torch.bool))
    (loss + output.values.square().mean()).backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved == learning(model)


def test_a_plain_model_with_merged_weights_equals_the_adapted_one() -> None:
    adapted, plain = shake(prepared(LORA)), tiny_vla(value_head=True)
    assert (actions(adapted) - actions(plain)).abs().max() > 1e-2
    before = {name: tensor.clone() for name, tensor in adapted.state_dict().items()}
    plain.load_state_dict(merged_state_dict(adapted))
    assert (actions(adapted) - actions(plain)).abs().max() < 1e-5
    assert all(torch.equal(tensor, before[name]) for name, tensor in adapted.state_dict().items())
    changed = merged_state_dict(adapted)["backbone.decoder.layers.1.mlp.up_proj.weight"]
    prefix = "backbone.decoder.layers.1.mlp.up_proj"
    weight, b, a = (before[f"{prefix}.{part}.weight"] for part in ("base_layer", "lora_B.default", "lora_A.default"))
    torch.testing.assert_close(changed, weight + 6 / 2 * b @ a)


def test_merging_a_model_without_adapters_changes_nothing() -> None:
    model = prepared(FineTuning(mode="head"))
    merged = merged_state_dict(model)
    assert merged.keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, merged[name]) for name, tensor in model.state_dict().items())


def test_a_copy_of_an_adapted_model_is_equal_and_independent() -> None:
    model = shake(prepared(LORA))
    average = copy.deepcopy(model)
    before = actions(model)
    assert torch.equal(actions(average), before)
    shake(average)
    assert torch.equal(actions(model), before)
    assert not torch.equal(actions(average), before)
    assert learning(average) == learning(model)


def test_a_lora_target_that_the_decoder_lacks_is_rejected() -> None:
    with pytest.raises(ValueError, match="qqq_proj"):
        prepared(FineTuning(mode="lora", lora_targets=("qqq_proj",)))


@pytest.mark.parametrize("family", ["mixtral", "grok"])
def test_the_error_says_that_a_decoders_experts_get_no_adapters(family: str) -> None:
    model = tiny_vla(backbone=toy_configs()[family])
    with pytest.raises(ValueError, match=r"no linear layers gate_proj, up_proj, down_proj to adapt.*experts") as error:
        prepare(model, LORA)
    assert str(error.value).endswith("--fine-tuning.lora-targets q_proj k_proj v_proj o_proj")
    assert not any(".lora_" in name for name, _ in model.named_parameters())
    prepare(model, replace(LORA, lora_targets=("q_proj", "k_proj", "v_proj", "o_proj")))
    assert len([name for name, _ in model.named_parameters() if ".lora_A." in name]) == 2 * 4


@pytest.mark.parametrize("targets", [("q_proj", "v_porj"), ("self_attn",), ()])
def test_a_lora_target_that_is_no_linear_layer_is_rejected(targets: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"it has: q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj"):
        prepare(tiny_vla(), replace(LORA, lora_targets=targets))
