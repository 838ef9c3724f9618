"""Formulas of memory, against what autograd keeps and what processes take."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from families import toy_configs
from tiny_model import WORLD_SPEC
from torch import Tensor
from transformers import LlamaConfig

from vla_model.config import VLAConfig
from vla_model.inputs.inputs import fake_inputs, sample_light, sample_shifts
from vla_model.model import VLA
from vla_model.numerics.dtypes import DtypeName
from vla_model.sizes import sizes_of
from vla_model.weights.config import FineTuning
from vla_model.weights.finetune import prepare
from vla_model.weights.footprint import ITEM_BYTES, acting, activation_bytes, count_parameters, learning

FULL = FineTuning()


def wide() -> VLAConfig:
    """Wide enough that what the formulas leave out is little."""
    backbone = LlamaConfig(
        vocab_size=512,
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=2,
        num_attention_heads=8,
        num_key_value_heads=4,
    )
    return VLAConfig(backbone=backbone, image_token_grid=3, **sizes_of(WORLD_SPEC))


def kept_bytes(config: VLAConfig, fine_tuning: FineTuning, batch_size: int, dtype: torch.dtype) -> int:
    """Of all tensors that autograd keeps for the backward pass of a batch, the model's own left out."""
    torch.manual_seed(0)
    model = VLA(config)
    prepare(model, fine_tuning)
    generator = torch.Generator().manual_seed(0)
    inputs = fake_inputs(config, batch_size)
    inputs = dataclasses.replace(
        inputs,
        instruction_mask=torch.ones_like(inputs.instruction_mask),
        shift_px=sample_shifts(config, batch_size, generator),
        light=sample_light(config, batch_size, generator),
    )
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", dtype, enabled=dtype != torch.float32, cache_enabled=False),
    ):
        output = model(inputs)
        loss = output.actions.mode().sum() + output.localization_loss(torch.zeros(batch_size, config.localization_size))
        assert loss.requires_grad
        return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "fine_tuning",
    [FULL, FineTuning(mode="lora", towers=True), FineTuning(mode="lora"), FineTuning(mode="head", towers=True)],
    ids=["full", "lora and towers", "lora", "head and towers"],
)
def test_estimated_activations_match_autograds_saved_tensors_within_10_percent(
    fine_tuning: FineTuning, dtype: DtypeName
) -> None:
    config = wide()
    few, many = (kept_bytes(config, fine_tuning, n, getattr(torch, dtype)) for n in (2, 6))
    formula = activation_bytes(config, fine_tuning, ITEM_BYTES[dtype])
    assert formula == pytest.approx((many - few) / 4, rel=0.1)


def test_estimated_weights_casts_and_gradients_are_parameter_counts_times_bytes() -> None:
    config = wide()
    counts = count_parameters(config, FULL)
    assert counts.total == counts.learning == sum(p.numel() for p in VLA(config).parameters())
    assert counts.embeddings == 512 * 256
    lora = count_parameters(config, FineTuning(mode="lora", lora_rank=2, lora_targets=("q_proj",)))
    heads = count_parameters(config, FineTuning(mode="head"))
    assert lora.learning - heads.learning == 2 * 2 * (256 + 256)
    found = learning(config, FULL, 8, compute="float32")
    assert found.weights == found.average == 4 * counts.total
    assert found.moments == 8 * counts.total
    assert found.gradients == 3 * 4 * counts.total + 2 * 4 * counts.largest_learning
    assert found.casts == 0.0
    assert learning(config, FULL, 8, num_parts=1, compute="float32").gradients == 4 * counts.total


@pytest.mark.parametrize("family", ["llama2", "mixtral", "gemma2", "gemma3", "grok"])
def test_a_deep_decoder_has_the_parameters_that_two_of_its_layers_say(family: str) -> None:
    kind = toy_configs()[family]
    fields: dict[str, Any] = kind.to_dict() | {"num_hidden_layers": 6}
    if family.startswith("gemma"):
        fields["layer_types"] = None  # as many as there are layers
    deep = type(kind)(**fields)
    config = VLAConfig(backbone=deep, **sizes_of(WORLD_SPEC))
    for fine_tuning in (FULL, FineTuning(mode="lora", lora_targets=("q_proj", "o_proj"))):
        with torch.device("meta"):
            model = VLA(config)
            prepare(model, fine_tuning)
        counts = count_parameters(config, fine_tuning)
        trained = [p.numel() for p in model.parameters() if p.requires_grad]
        assert counts.total == sum(p.numel() for p in model.parameters())
        assert counts.learning == sum(trained)
        assert counts.largest_learning == max(trained)
        assert deep.num_hidden_layers == 6, "the config is not changed"


def test_low_precision_policies_need_less_memory_and_load_through_bfloat16() -> None:
    float32, bfloat16, int8 = (acting(wide(), name) for name in ("float32", "bfloat16", "int8"))
    assert bfloat16.weights == pytest.approx(0.5 * float32.weights, rel=0.05)
    assert int8.weights < bfloat16.weights
    assert int8.total > bfloat16.total, "it is read in bfloat16 and made smaller layer by layer"


@pytest.mark.parametrize(
    "case",
    [
        {"model": "smol", "mode": "head, bfloat16 decoder", "batch_size": 2},
        {"model": "nano", "batch_size": 64},
    ],
    ids=str,
)
def test_a_process_memory_matches_the_estimate_within_10_percent(case: dict[str, object]) -> None:
    command = [sys.executable, "-m", "benchmarks.plan", "--one", json.dumps(case)]
    root = Path(__file__).parents[3]
    found = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    measured, predicted = map(float, found.stdout.splitlines()[-1].split())
    assert predicted == pytest.approx(measured, rel=0.1)
