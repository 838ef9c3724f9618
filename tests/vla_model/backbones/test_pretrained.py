"""Folders and GGUF files become decoders, whole or not at all. Files are written here, with random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from families import toy_configs
from tiny_model import STATISTICS, WORLD_SPEC, observe
from tokenizers import Tokenizer
from transformers import BertConfig
from written_models import states, write_folder, write_gguf

from vla_model.backbones.presets import FAMILIES
from vla_model.backbones.pretrained import load_backbone
from vla_model.create import create_policy
from vla_model.inputs.inputs import fake_inputs
from vla_model.inputs.processor import DEFAULT_TOKENIZER
from vla_model.policy import VLAPolicy
from vla_model.sizes import ModelConfig
from vla_model.weights.checkpoint import load_policy, save_policy
from vla_model.weights.config import FineTuning
from vla_model.weights.finetune import prepare

SENTENCE = "push the red cube to the left"
every_family = pytest.mark.parametrize("family", FAMILIES)


@every_family
def test_a_folder_of_each_family_becomes_the_decoder_that_was_saved(family: str, tmp_path: Path) -> None:
    model = write_folder(tmp_path, family)
    backbone = load_backbone(tmp_path)
    torch.testing.assert_close(states(backbone.decoder), states(model.get_decoder()), atol=1e-6, rtol=1e-6)
    assert backbone.tokenizer.encode(SENTENCE).ids == Tokenizer.from_file(str(DEFAULT_TOKENIZER)).encode(SENTENCE).ids


@pytest.mark.parametrize("family", ["llama", "gemma2", "mixtral"])
def test_the_first_layers_are_those_of_the_whole_and_the_dtype_is_chosen(family: str, tmp_path: Path) -> None:
    model = write_folder(tmp_path, family).get_decoder()
    decoder = load_backbone(tmp_path, num_layers=1, dtype=torch.bfloat16).decoder
    assert decoder.config.num_hidden_layers == 1
    assert not [name for name, _ in decoder.named_parameters() if name.startswith("layers.1.")]
    assert {parameter.dtype for parameter in decoder.parameters()} == {torch.bfloat16}
    for name, parameter in decoder.named_parameters():
        assert torch.equal(parameter, model.get_parameter(name).to(torch.bfloat16)), name


def test_a_sharded_folder_is_read_and_a_missing_or_truncated_shard_rejected(tmp_path: Path) -> None:
    model = write_folder(tmp_path, max_shard_size="100KB")
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 2
    torch.testing.assert_close(states(load_backbone(tmp_path).decoder), states(model.get_decoder()))
    whole = shards[1].read_bytes()
    shards[1].write_bytes(whole[:-9])
    with pytest.raises(ValueError, match=rf"{shards[1].name} is broken or truncated"):
        load_backbone(tmp_path)
    shards[1].unlink()
    with pytest.raises(ValueError, match=f"lacks {shards[1].name}.*hf download"):
        load_backbone(tmp_path)


def test_folders_of_something_else_are_rejected_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere does not exist\..*accept its licence.*hf auth login.*hf download"):
        load_backbone(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"has no config\.json"):
        load_backbone(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is damaged"):
        load_backbone(tmp_path)
    BertConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="of the family 'bert'; families: llama, mistral, mixtral, gemma"):
        load_backbone(tmp_path)
    toy_configs()["llama1"].save_pretrained(tmp_path)
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(ValueError, match=r"lacks model\.safetensors; pytorch_model\.bin would have to be unpickled"):
        load_backbone(tmp_path)


def test_weights_that_do_not_fit_the_config_are_refused(tmp_path: Path) -> None:
    write_folder(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    with pytest.raises(ValueError, match=r"num_layers must be within 1\.\.2, got 3"):
        load_backbone(tmp_path, num_layers=3)
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(ValueError, match=r"lack layers\.2\."):
        load_backbone(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config | {"intermediate_size": 64}))
    with pytest.raises(ValueError, match="do not fit its config"):
        load_backbone(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "gptq"}}))
    with pytest.raises(ValueError, match="holds quantised weights"):
        load_backbone(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "tokenizer_config.json").unlink()
    with pytest.raises(ValueError, match="no tokenizer"):
        load_backbone(tmp_path)


@every_family
def test_a_gguf_file_of_each_family_becomes_the_decoder_that_was_written(family: str, tmp_path: Path) -> None:
    model = write_gguf(tmp_path / "model.gguf", family)
    backbone = load_backbone(tmp_path / "model.gguf")
    decoder = model.get_decoder()
    if family == "mistral":
        decoder.config.sliding_window = None  # Such files do not record it.
    torch.testing.assert_close(states(backbone.decoder), states(decoder), atol=1e-5, rtol=1e-5)
    encoding = backbone.tokenizer.encode("push the red cube")
    assert encoding.tokens[0] == "<begin>"
    assert backbone.tokenizer.decode(encoding.ids) == "push the red cube"


def test_quantised_tensors_are_dequantised(tmp_path: Path) -> None:
    model = write_gguf(tmp_path / "model.gguf", "llama", quantised=True).get_decoder()
    decoder = load_backbone(tmp_path / "model.gguf", num_layers=1, dtype=torch.bfloat16).decoder
    for name, parameter in decoder.named_parameters():
        assert parameter.dtype == torch.bfloat16
        error = (parameter.float() - model.get_parameter(name)).abs().max()
        assert error < model.get_parameter(name).abs().max() / 100, name


def test_gguf_files_that_are_broken_or_something_else_are_refused_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_gguf(path, "gemma")
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(ValueError, match=f"is truncated: it has {len(whole) - 100} bytes and its header says"):
        load_backbone(path)
    for length in (0, 3, 20, 900):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="is no GGUF file, or truncated"):
            load_backbone(path)
    path.write_bytes(b"PK" + whole)
    with pytest.raises(ValueError, match="is no GGUF file, or truncated"):
        load_backbone(path)
    path.write_bytes(whole.replace(b"blk.1.attn_q.weight", b"blk.1.attn_z.weight"))
    with pytest.raises(ValueError, match=r"has tensors that no gemma has here: blk\.1\.attn_z\.weight"):
        load_backbone(path)
    path.write_bytes(whole.replace(b"blk.1.attn_q.weight", b"blk.9.attn_q.weight"))
    with pytest.raises(ValueError, match=r"lack layers\.1\.self_attn\.q_proj\.weight"):
        load_backbone(path)
    path.write_bytes(whole.replace(b"gemma", b"qwen2"))
    with pytest.raises(ValueError, match="of the family 'qwen2'; families: llama, gemma"):
        load_backbone(path)


def test_a_policy_on_a_pretrained_decoder_has_its_tokenizer_and_can_be_saved(tmp_path: Path) -> None:
    write_folder(tmp_path / "weights")
    model, processor = create_policy(
        ModelConfig(name=str(tmp_path / "weights"), num_layers=1), WORLD_SPEC, STATISTICS, torch.bfloat16
    )
    reference = load_backbone(tmp_path / "weights", 1, torch.bfloat16).decoder
    save_policy(tmp_path / "policy", model.eval(), processor)
    loaded, loaded_processor = load_policy(tmp_path / "policy")
    for name, parameter in reference.named_parameters():
        for decoder in (model.backbone.decoder, loaded.backbone.decoder):
            assert torch.equal(decoder.get_parameter(name), parameter), name
            assert decoder.get_parameter(name).dtype == torch.bfloat16
    assert next(loaded.action_head.parameters()).dtype == torch.float32
    observation, actions = observe(2), []
    for policy in (VLAPolicy(model, processor), VLAPolicy(loaded, loaded_processor)):
        policy.begin(range(2), observation["instruction"], (0, 1))
        actions.append(policy.act(range(2), observation).actions)
    np.testing.assert_array_equal(*actions)


def test_an_unknown_model_is_rejected_with_those_that_exist(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ValueError, match="model 'llama9' does not exist; models: nano, nano_steady, llama1_7b"):
        create_policy(ModelConfig(name="llama9"), WORLD_SPEC, STATISTICS)
    with pytest.raises(ValueError, match="weights of smol are not here yet; fetch and convert them with: make smol"):
        create_policy(ModelConfig(name="smol"), WORLD_SPEC, STATISTICS)


@pytest.mark.parametrize("mode", ["head", "lora"])
def test_everything_around_a_frozen_bfloat16_decoder_is_trained(mode: Literal["head", "lora"], tmp_path: Path) -> None:
    write_folder(tmp_path / "weights")
    torch.manual_seed(0)
    model, _ = create_policy(ModelConfig(name=str(tmp_path / "weights")), WORLD_SPEC, STATISTICS, torch.bfloat16)
    prepare(model.train(), FineTuning(mode=mode, lora_rank=2, towers=True))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.0)
    for _ in range(2):  # An adapter's first matrix learns once its second is no longer zero.
        output = model(fake_inputs(model.config, 8))
        losses = (output.actions.mode().square().sum(), output.localization_from_vision.square().sum())
        (sum(losses) + output.localization_from_queries.square().sum()).backward()
        optimizer.step()
        optimizer.zero_grad()
    kept = {name for name, p in model.named_parameters() if torch.equal(p, before[name])}
    frozen = {name for name in before if name.startswith("backbone.") and ".lora_" not in name}
    assert kept == frozen
    assert any(".lora_" in name for name in before) == (mode == "lora")
