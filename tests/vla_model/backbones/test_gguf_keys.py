"""Keys of GGUF files: each is honoured as llama.cpp does, or refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from transformers import LlamaConfig, MistralConfig, PretrainedConfig
from written_models import states, write_gguf

from vla_model.backbones.gguf_weights import GGUFFile
from vla_model.backbones.pretrained import load_backbone


def config(folder: Path, family: str, keys: dict[str, Any] | None = None, without: tuple[str, ...] = ()) -> Any:
    write_gguf(folder / "x.gguf", family, keys=keys, without=without)
    return GGUFFile(folder / "x.gguf").config


def refused(folder: Path, family: str, message: str, **asked: Any) -> None:
    with pytest.raises(ValueError, match=message):
        config(folder, family, **asked)


def rope(found: PretrainedConfig) -> dict[str, Any]:
    return found.rope_parameters.get("full_attention", found.rope_parameters)


@pytest.mark.parametrize(
    "keys",
    [
        {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0},
        {"llama.rope.scaling.factor": 4.0},
        {"llama.rope.scale_linear": 4.0},
    ],
    ids=["typed", "untyped", "old name"],
)
def test_linear_rope_scaling_is_read_from_each_of_its_keys(keys: dict[str, Any], tmp_path: Path) -> None:
    found = config(tmp_path, "mistral", keys)
    assert (rope(found)["rope_type"], rope(found)["factor"]) == ("linear", 4.0)
    scaled, plain = load_backbone(tmp_path / "x.gguf").decoder, write_gguf(tmp_path / "y.gguf", "mistral").get_decoder()
    ours, theirs = (decoder.get_buffer("rotary_emb.inv_freq") for decoder in (scaled, plain))
    torch.testing.assert_close(ours, theirs / 4)
    assert not torch.allclose(states(scaled), states(plain), atol=1e-3)


@pytest.mark.parametrize(
    "keys",
    [
        {"llama.rope.scale_linear": 1.0},
        {"llama.rope.scaling.factor": 0.0, "llama.rope.scale_linear": 4.0},
        {"llama.rope.scaling.type": "none", "llama.rope.scaling.factor": 4.0},
    ],
)
def test_a_rope_factor_of_one_or_zero_changes_nothing(keys: dict[str, Any], tmp_path: Path) -> None:
    assert rope(config(tmp_path, "mistral", keys))["rope_type"] == "default"


def test_missing_keys_have_llama_cpps_defaults(tmp_path: Path) -> None:
    without = ("llama.rope.freq_base", "llama.attention.key_length")
    found = config(tmp_path, "mixtral", without=without)
    assert rope(found)["rope_theta"] == 10_000.0  # Mixtral's own default is 1e6
    assert found.head_dim == 32 // 4
    write_gguf(tmp_path / "y.gguf", "gemma", without=("gemma.attention.head_count_kv",))
    assert GGUFFile(tmp_path / "y.gguf").config.num_key_value_heads == 4  # as many as there are heads


@pytest.mark.parametrize(
    "key", ["block_count", "feed_forward_length", "context_length", "attention.layer_norm_rms_epsilon"]
)
def test_a_key_that_llama_cpp_requires_is_required(key: str, tmp_path: Path) -> None:
    refused(tmp_path, "mistral", f"lacks the key llama.{key}", without=(f"llama.{key}",))


@pytest.mark.parametrize(
    ("family", "key", "value"),
    [
        ("mistral", "llama.rope.dimension_count", 4),
        ("mistral", "llama.rope.scaling.attn_factor", 0.5),
        ("mistral", "llama.rope.scaling.type", "yarn"),
        ("mistral", "llama.attention.value_length", 4),
        ("mistral", "llama.attention.scale", 0.25),
        ("mistral", "llama.attention.causal", False),
        ("mistral", "llama.attention.clamp_kqv", 8.0),
        ("mistral", "llama.attn_logit_softcapping", 50.0),
        ("mistral", "llama.embedding_scale", 12.0),
        ("mistral", "llama.residual_scale", 0.22),
        ("mistral", "llama.attention.head_count", [4, 2]),
        ("mistral", "llama.something.new", 1),
        ("mixtral", "llama.expert_shared_count", 1),
        ("mixtral", "llama.expert_weights_scale", 2.5),
        ("mixtral", "llama.expert_gating_func", 2),
        ("mixtral", "llama.expert_weights_norm", False),
        ("mixtral", "llama.expert_feed_forward_length", 24),
        ("gemma3_text", "gemma3.attn_logit_softcapping", 50.0),
        ("grok-1", "grok.router_logit_softcapping", 30.0),
        ("grok-1", "grok.attention.temperature_length", 1024),
    ],
)
def test_an_unsupported_key_that_would_change_outputs_is_rejected_by_name(
    family: str, key: str, value: Any, tmp_path: Path
) -> None:
    refused(tmp_path, family, key.replace(".", r"\."), keys={key: value})


def test_keys_with_neutral_values_are_accepted(tmp_path: Path) -> None:
    keys = {
        "llama.vocab_size": 2048,
        "llama.rope.dimension_count": 8,
        "llama.attention.value_length": 8,
        "llama.attention.causal": True,
        "llama.expert_count": 0,
        "llama.attention.head_count_kv": [2, 2],
        "general.quantization_version": 2,
    }
    assert type(config(tmp_path, "mistral", keys)) is LlamaConfig


def test_a_llama_with_a_sliding_window_becomes_a_mistral(tmp_path: Path) -> None:
    found = config(tmp_path, "mistral", {"llama.attention.sliding_window": 8})
    assert (type(found), found.sliding_window) == (MistralConfig, 8)
    reference = write_gguf(tmp_path / "y.gguf", "mistral").get_decoder()
    assert reference.config.sliding_window == 8
    torch.testing.assert_close(
        states(load_backbone(tmp_path / "x.gguf").decoder), states(reference), atol=1e-5, rtol=1e-5
    )


def test_gemmas_layer_types_and_both_rope_bases_are_read(tmp_path: Path) -> None:
    every_third = ["sliding_attention", "sliding_attention", "full_attention"] * 2
    found = config(tmp_path, "gemma3_text", {"gemma3.attention.sliding_window_pattern": 3})
    assert found.layer_types == every_third
    pattern = [True, True, False] * 2
    assert (
        config(tmp_path, "gemma3_text", {"gemma3.attention.sliding_window_pattern": pattern}).layer_types == every_third
    )
    found = config(tmp_path, "gemma3_text", {"gemma3.rope.freq_base_swa": 5000.0})
    assert found.rope_parameters["sliding_attention"]["rope_theta"] == 5000.0


def test_a_split_file_and_an_adapter_are_rejected(tmp_path: Path) -> None:
    refused(tmp_path, "mistral", "one of 3 files", keys={"split.count": 3})
    refused(tmp_path, "mistral", "general.type 'adapter'", keys={"general.type": "adapter"})


def tokenizer(folder: Path, without: tuple[str, ...] = (), **keys: Any) -> Tokenizer:
    keys = {f"tokenizer.ggml.{name}": value for name, value in keys.items()}
    write_gguf(folder / "x.gguf", "mistral", keys=keys, without=[f"tokenizer.ggml.{name}" for name in without])
    return load_backbone(folder / "x.gguf").tokenizer


@pytest.mark.parametrize(
    ("pre", "begins"), [("llama-bpe", True), ("tekken", True), ("default", False), ("smollm", False)]
)
def test_a_file_without_the_key_gets_a_bos_token_where_llama_cpp_adds_one(
    pre: str, begins: bool, tmp_path: Path
) -> None:
    tokens = tokenizer(tmp_path, pre=pre, without=("add_bos_token",)).encode("push it").tokens
    assert (tokens[0] == "<begin>") == begins
    tokens = tokenizer(tmp_path, pre=pre, add_bos_token=not begins).encode("push it").tokens
    assert (tokens[0] == "<begin>") == (not begins)


def test_requested_bos_and_eos_tokens_are_added_or_reported_missing(tmp_path: Path) -> None:
    tokens = tokenizer(tmp_path, add_eos_token=True, eos_token_id=0).encode("push it").tokens
    assert (tokens[0], tokens[-1]) == ("<begin>", "<pad>")
    with pytest.raises(ValueError, match=r"adds a bos_token to every text, but lacks tokenizer\.ggml\.bos_token_id"):
        tokenizer(tmp_path, without=("bos_token_id",))


def test_llama_3_encodes_a_word_of_its_vocabulary_as_one_token(tmp_path: Path) -> None:
    assert tokenizer(tmp_path, pre="llama-bpe").model.ignore_merges
    assert not tokenizer(tmp_path, pre="default").model.ignore_merges


def test_smollm_splits_digits(tmp_path: Path) -> None:
    found = tokenizer(tmp_path, pre="smollm", add_bos_token=False)
    assert [text for text, _ in found.pre_tokenizer.pre_tokenize_str("at 120")] == ["at", "Ġ", "1", "2", "0"]


def test_an_unsupported_tokenizer_is_rejected_and_unsupported_keys_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"tokenizer\.ggml\.pre 'bloom', not supported"):
        tokenizer(tmp_path, pre="bloom")
    with pytest.raises(ValueError, match=r"tokenizer\.ggml\.model 'bert'"):
        tokenizer(tmp_path, model="bert")
    with pytest.raises(ValueError, match=r"tokenizer\.ggml\.add_sep_token"):
        tokenizer(tmp_path, add_sep_token=True)
    with pytest.warns(UserWarning, match=r"tokenizer\.ggml\.normalizer_mode"):
        tokenizer(tmp_path, normalizer_mode=3)
