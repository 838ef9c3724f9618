"""Toys of every family as Hugging Face folders and GGUF files, with random weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import grok_language_model  # noqa: F401 - registers Grok-1 with AutoModelForCausalLM
import torch
from families import toy_configs
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from vla_model.inputs.processor import DEFAULT_TOKENIZER

OF_A_FAMILY = {config.model_type: name for name, config in toy_configs().items() if name != "llama3"}
"""The last toy of each family; llama's scales its rotary positions."""


def toy(family: str) -> PreTrainedModel:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(toy_configs()[OF_A_FAMILY[family]]).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def write_folder(folder: Path, family: str = "llama", **options: Any) -> PreTrainedModel:
    model = toy(family)
    model.save_pretrained(folder, **options)
    PreTrainedTokenizerFast(tokenizer_file=str(DEFAULT_TOKENIZER)).save_pretrained(folder)
    return model


def states(decoder: PreTrainedModel) -> torch.Tensor:
    return decoder(torch.tensor([[5, 17, 1999, 3, 3, 256, 71, 8, 40, 1000]])).last_hidden_state


ARCHITECTURES = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "mistral": gguf.MODEL_ARCH.LLAMA,
    "mixtral": gguf.MODEL_ARCH.LLAMA,
    "gemma": gguf.MODEL_ARCH.GEMMA,
    "gemma2": gguf.MODEL_ARCH.GEMMA2,
    "gemma3_text": gguf.MODEL_ARCH.GEMMA3,
    "grok-1": gguf.MODEL_ARCH.GROK,
}


def write_gguf(
    path: Path, family: str, quantised: bool = False, keys: dict[str, Any] | None = None, without: Sequence[str] = ()
) -> PreTrainedModel:
    """As llama.cpp's convert_hf_to_gguf.py would, with gguf's own names of tensors and keys.

    Args:
        keys: to add, or with other values.
        without: keys that it leaves out.
    """
    model = toy(family)
    config, decoder = model.config, model.get_decoder()
    architecture = gguf.MODEL_ARCH_NAMES[ARCHITECTURES[family]]
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_key_length(config.head_dim or config.hidden_size // config.num_attention_heads)
    if family in ("gemma2", "gemma3_text"):
        writer.add_sliding_window(config.sliding_window)
    if family == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
    if family in ("mixtral", "grok-1"):
        writer.add_expert_count(config.num_local_experts)
        writer.add_expert_used_count(config.num_experts_per_tok)
    if family == "grok-1":
        writer.add_embedding_scale(config.embedding_multiplier_scale)
        writer.add_attn_output_scale(config.attn_output_multiplier)
    rope = config.rope_parameters.get("full_attention", config.rope_parameters)
    writer.add_rope_freq_base(rope["rope_theta"])
    _write_tokenizer(writer)
    if family == "llama":
        plain = rope["rope_theta"] ** -(torch.arange(4) / 4)
        writer.add_tensor("rope_freqs.weight", (plain / decoder.rotary_emb.inv_freq).numpy())
    names = gguf.get_tensor_name_map(ARCHITECTURES[family], config.num_hidden_layers)
    for name, tensor in _as_llama_cpp_has_them(decoder, family).items():
        theirs = names.get_name(name, try_suffixes=(".weight",))
        assert theirs, name
        array = tensor.numpy()
        if quantised and array.ndim == 2 and array.shape[1] % 32 == 0:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(theirs, gguf.quants.quantize(array, kind), raw_dtype=kind)
        else:
            writer.add_tensor(theirs, array)
    for key in (*without, *(keys or {})):
        writer.kv_data[0].pop(key, None)
    for key, value in (keys or {}).items():
        writer.add_key_value(key, value, gguf.GGUFValueType.get_type(value))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


def _write_tokenizer(writer: gguf.GGUFWriter) -> None:
    content = json.loads(DEFAULT_TOKENIZER.read_text())
    tokens = sorted(content["model"]["vocab"], key=content["model"]["vocab"].get)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    special = {token["id"] for token in content["added_tokens"]}
    writer.add_token_types([3 if index in special else 1 for index in range(len(tokens))])
    writer.add_token_merges([" ".join(merge) for merge in content["model"]["merges"]])
    writer.add_bos_token_id(tokens.index("<begin>"))
    writer.add_add_bos_token(True)


def _as_llama_cpp_has_them(decoder: PreTrainedModel, family: str) -> dict[str, torch.Tensor]:
    """Tensors as convert_hf_to_gguf.py writes them, under the names that gguf knows them by."""
    tensors = {}
    for our_name, parameter in decoder.named_parameters():
        name, tensor = _released_name(our_name, family), parameter.detach()
        if ARCHITECTURES[family] is gguf.MODEL_ARCH.LLAMA and name.endswith(("q_proj.weight", "k_proj.weight")):
            heads = decoder.config.num_attention_heads if "q_proj" in name else decoder.config.num_key_value_heads
            rows, columns = tensor.shape
            tensor = tensor.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)
        if family.startswith("gemma") and name.endswith("norm.weight"):
            tensor = tensor + 1
        layer = name.split(".")[2]
        if name.endswith("experts.gate_up_proj"):
            gate, up = tensor.chunk(2, dim=1)
            tensors |= {_EXPERTS[family][0].format(layer): gate, _EXPERTS[family][1].format(layer): up}
        elif name.endswith("experts.down_proj"):
            tensors[_EXPERTS[family][2].format(layer)] = tensor
        else:
            tensors[name] = tensor
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def _released_name(name: str, family: str) -> str:
    name = f"model.{name}"
    for ours, theirs in _RELEASED_NAMES.items() if family == "grok-1" else ():
        name = name.replace(ours, theirs)
    return name


_EXPERTS = {
    "mixtral": [f"layers.{{}}.feed_forward.experts.{name}.weight" for name in ("w1", "w3", "w2")],
    "grok-1": [f"transformer.decoder_layer.{{}}.moe.{name}.weight" for name in ("linear", "linear_v", "linear_1")],
}
"""gate, up, down"""

_RELEASED_NAMES = {
    "model.embed_tokens": "transformer.in_out_embed",
    "model.norm": "transformer.rms_norm",
    "model.layers": "transformer.decoder_layer",
    "attn.q_proj": "multi_head_attention.query",
    "attn.k_proj": "multi_head_attention.key",
    "attn.v_proj": "multi_head_attention.value",
    "attn.o_proj": "multi_head_attention.linear",
    "pre_attn_norm": "rms_norm",
    "post_attn_norm": "rms_norm_1",
    "pre_moe_norm": "rms_norm_2",
    "post_moe_norm": "rms_norm_3",
    "moe_block.gate": "router",
}
"""Ours and the Grok-1 release's."""
