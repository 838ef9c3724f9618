"""Training that begins with a saved policy's weights: what is copied, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_model import STATISTICS, WORLD_SPEC, tiny_config, tiny_processor, tiny_vla
from torch import Tensor
from transformers import LlamaConfig
from written_models import write_folder

from vla_model.create import create_policy, shape_of
from vla_model.model import VLA
from vla_model.sizes import ModelConfig
from vla_model.weights.checkpoint import save_policy
from vla_model.weights.initial import check_initial_weights, load_initial_weights


def saved(folder: Path, **changes: Any) -> dict[str, Tensor]:
    model = tiny_vla(**changes)
    save_policy(folder, model, tiny_processor())
    return model.state_dict()


def other(**changes: Any) -> VLA:
    torch.manual_seed(1)
    return VLA(tiny_config(**changes))


def test_all_weights_are_the_saved_ones_also_for_longer_instructions(tmp_path: Path) -> None:
    expected, model = saved(tmp_path / "policy"), other(instruction_length=40)
    load_initial_weights(model, tmp_path / "policy")
    assert model.config.instruction_length == 40
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def test_a_value_head_is_left_out(tmp_path: Path) -> None:
    expected, model = saved(tmp_path / "policy", value_head=True), other()
    load_initial_weights(model, tmp_path / "policy")
    assert expected.keys() - model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def test_every_difference_of_the_models_is_listed(tmp_path: Path) -> None:
    saved(tmp_path / "policy")
    asked = tiny_config(chunk_size=6, num_keypoints=8)
    with pytest.raises(ValueError, match="chunk_size: 4 there, 6 in this recipe\n  num_keypoints: 6 there, 8"):
        check_initial_weights(tmp_path / "policy", asked)


def test_a_difference_of_the_decoders_is_listed(tmp_path: Path) -> None:
    saved(tmp_path / "policy")
    decoder = LlamaConfig(
        vocab_size=2048, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=2
    )
    asked = tiny_config(backbone=decoder)
    with pytest.raises(ValueError, match=r"backbone\.num_hidden_layers: 2 there, 3 in this recipe"):
        check_initial_weights(tmp_path / "policy", asked)


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_a_policy_of_a_pretrained_decoder_fits_its_own_recipe(family: str, tmp_path: Path) -> None:
    write_folder(tmp_path / "decoder", family)
    asked = ModelConfig(name=str(tmp_path / "decoder"), num_layers=1)
    save_policy(tmp_path / "policy", *create_policy(asked, WORLD_SPEC, STATISTICS))
    check_initial_weights(tmp_path / "policy", shape_of(asked, WORLD_SPEC))
