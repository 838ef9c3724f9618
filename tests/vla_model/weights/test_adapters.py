"""Adapters on disk: small, whole, for their own base, and readable by peft."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from peft import PeftModel
from safetensors.torch import load_file
from test_finetune import LORA, shake
from tiny_model import observe, tiny_processor, tiny_vla

from vla_model.model import VLA
from vla_model.policy import VLAPolicy
from vla_model.weights.adapters import load_adapted, save_adapter
from vla_model.weights.checkpoint import load_policy, save_policy
from vla_model.weights.config import FineTuning
from vla_model.weights.finetune import prepare

HEAD = FineTuning(mode="head", freeze_router=True)


@pytest.fixture(name="base")
def make_base(tmp_path: Path) -> Path:
    save_policy(tmp_path / "base", tiny_vla(), tiny_processor())
    return tmp_path / "base"


def tuned(base: Path, fine_tuning: FineTuning) -> VLA:
    model, _ = load_policy(base, value_head=True)
    prepare(model, fine_tuning)
    return shake(model)


def actions(model: VLA) -> NDArray[np.float32]:
    policy, observation = VLAPolicy(model, tiny_processor(), dtype="float32"), observe(3)
    policy.begin(range(3), observation["instruction"], (0, 1, 2))
    return policy.act(range(3), observation).actions


@pytest.mark.parametrize("fine_tuning", [LORA, HEAD])
def test_an_adapter_loaded_onto_its_base_gives_the_saved_models_actions(
    base: Path, tmp_path: Path, fine_tuning: FineTuning
) -> None:
    model = tuned(base, fine_tuning)
    save_adapter(tmp_path / "deep" / "adapter", model, fine_tuning)
    again, _ = load_adapted(base, tmp_path / "deep" / "adapter")
    np.testing.assert_array_equal(actions(again), actions(model))
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, again.get_parameter(name)), name
        assert parameter.requires_grad == again.get_parameter(name).requires_grad, name
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["adapter"]


@pytest.mark.parametrize("fine_tuning", [LORA, HEAD])
def test_a_merged_policy_gives_the_same_actions(base: Path, tmp_path: Path, fine_tuning: FineTuning) -> None:
    save_adapter(tmp_path / "adapter", tuned(base, fine_tuning), fine_tuning)
    model, processor = load_adapted(base, tmp_path / "adapter")
    save_policy(tmp_path / "merged", model, processor)
    merged, _ = load_policy(tmp_path / "merged")
    assert merged.state_dict().keys() == tiny_vla(value_head=True).state_dict().keys()
    assert np.abs(actions(merged) - actions(model)).max() < 1e-5
    assert np.abs(actions(merged) - actions(tiny_vla())).max() > 1e-2


def test_a_learner_s_moving_average_is_saved_like_the_trained_model(base: Path, tmp_path: Path) -> None:
    average = copy.deepcopy(tuned(base, LORA)).requires_grad_(False)
    save_adapter(tmp_path / "adapter", average, LORA)
    np.testing.assert_array_equal(actions(load_adapted(base, tmp_path / "adapter")[0]), actions(average))


def test_an_adapter_holds_only_trained_weights(base: Path, tmp_path: Path) -> None:
    model = tuned(base, LORA)
    save_adapter(tmp_path / "adapter", model, LORA)
    saved = [load_file(path) for path in (tmp_path / "adapter").glob("*.safetensors")]
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert sum(tensor.numel() for weights in saved for tensor in weights.values()) == trained


def test_another_base_is_rejected(base: Path, tmp_path: Path) -> None:
    save_adapter(tmp_path / "adapter", tuned(base, LORA), LORA)
    other = tiny_vla()
    with torch.no_grad():
        other.queries[0, 0] += 1e-3
    save_policy(tmp_path / "other", other, tiny_processor())
    with pytest.raises(
        ValueError, match=r"adapter was trained on another base than .*other: the frozen weights .* hash"
    ):
        load_adapted(tmp_path / "other", tmp_path / "adapter")


def test_peft_reads_the_adapters(base: Path, tmp_path: Path) -> None:
    model = tuned(base, LORA)
    save_adapter(tmp_path / "adapter", model, LORA)
    theirs = PeftModel.from_pretrained(load_policy(base)[0].backbone.decoder, str(tmp_path / "adapter"))
    tokens = torch.arange(12)[None]
    with torch.inference_mode():
        ours = model.backbone.decoder(tokens).last_hidden_state
        torch.testing.assert_close(theirs(tokens).last_hidden_state, ours)
        assert (load_policy(base)[0].backbone.decoder(tokens).last_hidden_state - ours).abs().max() > 1e-2


@pytest.mark.parametrize("part", ["fine_tuning.json", "heads.safetensors", "adapter_model.safetensors"])
def test_a_missing_or_broken_part_is_named(base: Path, tmp_path: Path, part: str) -> None:
    save_adapter(tmp_path / "adapter", tuned(base, LORA), LORA)
    path = tmp_path / "adapter" / part
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=rf"{part} in .*adapter is broken"):
        load_adapted(base, tmp_path / "adapter")
    path.unlink()
    with pytest.raises(ValueError, match=rf"adapter( is not a saved adapter: it)? lacks {part}"):
        load_adapted(base, tmp_path / "adapter")


def test_an_existing_folder_is_kept_and_full_fine_tuning_has_no_adapter(base: Path, tmp_path: Path) -> None:
    model = tuned(base, HEAD)
    with pytest.raises(ValueError, match="base exists and is not overwritten"):
        save_adapter(base, model, HEAD)
    with pytest.raises(ValueError, match="full fine-tuning freezes no weights"):
        save_adapter(tmp_path / "adapter", model, FineTuning())
