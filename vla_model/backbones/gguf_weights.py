"""A GGUF file (llama.cpp's format) as a transformers config and weights.

transformers (5.24) reads the format and dequantises, but its loader supports only Qwen 3.5 and LFM2; the previous one,
which needs the package gguf, LLaMA, Mistral and Gemma 2 and 3. Neither loads Gemma 1, Mixtral or Grok-1, keeps LLaMA
3.1's rope scaling, or loads only the first layers. So tensor names are mapped here, as llama.cpp's
convert_hf_to_gguf.py writes them, and keys in backbones/gguf_keys.py. A Mistral, whose window such files seldom
contain, becomes a LlamaModel, which computes the same within the window.

Shape letters: E experts, H hidden size of an expert, d width.
"""

from __future__ import annotations

import struct
from pathlib import Path

import torch
from torch import Tensor
from transformers import PretrainedConfig
from transformers.integrations.gguf.dequant import GGML_BLOCK, dequantize
from transformers.integrations.gguf.reader import GgufHeader, load_gguf_state_dict, read_gguf_metadata
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from envs.errors import UserError
from vla_model.backbones.gguf_keys import CONFIGS, decoder_config

_ATTENTION = {"attn_q": "q_proj", "attn_k": "k_proj", "attn_v": "v_proj", "attn_output": "o_proj"}
_LLAMA = {
    "attn_norm": "input_layernorm",
    **{theirs: f"self_attn.{ours}" for theirs, ours in _ATTENTION.items()},
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "ffn_gate_inp": "mlp.gate",
}
_GEMMA2 = _LLAMA | {
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_GROK = {
    "attn_norm": "pre_attn_norm",
    **{theirs: f"attn.{ours}" for theirs, ours in _ATTENTION.items()},
    "attn_output_norm": "post_attn_norm",
    "ffn_norm": "pre_moe_norm",
    "ffn_gate_inp": "moe_block.gate",
    "layer_output_norm": "post_moe_norm",
}
_IN_LAYER = {"llama": _LLAMA, "gemma": _LLAMA, "gemma2": _GEMMA2, "gemma3": _GEMMA2, "grok": _GROK}
"""Per architecture: {llama.cpp's name: transformers' name} of the tensors in a layer."""


class GGUFFile:
    """One file, checked; its tensors are read on demand."""

    def __init__(self, path: Path) -> None:
        """
        Raises:
            UserError: it is no GGUF file, truncated, or of an unsupported architecture.
        """
        self.path = path
        try:
            self.metadata, _ = read_gguf_metadata(str(path))
            header = GgufHeader.from_file(str(path))
        except (ValueError, struct.error) as error:
            raise UserError(f"{path} is no GGUF file, or truncated: {error}; download it again") from error
        needed = header.data_start + max((info.offset + info.nbytes for info in header.tensors), default=0)
        if path.stat().st_size < needed:
            raise UserError(
                f"{path} is truncated: it has {path.stat().st_size} bytes and its header says {needed}; download it "
                "again"
            )
        self.architecture = header.architecture
        if self.architecture not in CONFIGS:
            raise UserError(f"{path} is of the family {self.architecture!r}; families: {', '.join(CONFIGS)}")
        if (kind := self.metadata.get("general.type", "model")) != "model":
            raise UserError(f"{path} has general.type {kind!r}, expected a whole model; take the model's own file")
        if (count := self.metadata.get("split.count", 1)) > 1:
            raise UserError(f"{path} is one of {count} files (split.count); join them with llama.cpp's gguf-split")
        self._infos = {info.name: info for info in header.tensors}
        self._tensors = load_gguf_state_dict(header)
        self.config = self._config()

    def state_dict(self, config: PretrainedConfig, dtype: torch.dtype) -> dict[str, Tensor]:
        """Weights of the layers that the config has, under transformers' names.

        Raises:
            UserError: experts' tensors are missing, or the family has no such tensors; the message names them.
        """
        self._check_unexpected(config.num_hidden_layers)
        weights = {
            "embed_tokens.weight": self._tensor("token_embd.weight", dtype),
            "norm.weight": self._tensor("output_norm.weight", dtype),
        }
        names = _IN_LAYER[self.architecture]
        mlp = names["ffn_gate_inp"].removesuffix(".gate")
        for layer in range(config.num_hidden_layers):
            prefix = f"blk.{layer}."
            for theirs, ours in names.items():
                if f"{prefix}{theirs}.weight" in self._tensors:
                    weights[f"layers.{layer}.{ours}.weight"] = self._tensor(f"{prefix}{theirs}.weight", dtype)
            if config.to_dict().get("num_local_experts"):
                gate, up, down = (
                    self._tensor(f"{prefix}ffn_{part}_exps.weight", dtype) for part in ("gate", "up", "down")
                )
                weights[f"layers.{layer}.{mlp}.experts.gate_up_proj"] = torch.cat([gate, up], dim=1)  # [E, 2 H, d]
                weights[f"layers.{layer}.{mlp}.experts.down_proj"] = down  # [E, d, H]
        return weights

    def _check_unexpected(self, num_layers: int) -> None:
        """An unexpected tensor means that the file is of another model."""
        known = {*_IN_LAYER[self.architecture], "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"}
        expected = {f"blk.{layer}.{name}.weight" for layer in range(num_layers) for name in known}
        layers = tuple(f"blk.{layer}." for layer in range(num_layers))
        unexpected = sorted(name for name in self._infos if name.startswith(layers) and name not in expected)
        if unexpected:
            raise UserError(
                f"{self.path} has tensors that no {self.architecture} has here: {', '.join(unexpected[:5])}"
            )

    def _tensor(self, name: str, dtype: torch.dtype) -> Tensor:
        if name not in self._tensors:
            raise UserError(f"{self.path} lacks the tensor {name}; take another file of the model")
        tensor = self._tensors[name][...]
        info = self._infos[name]
        if info.ggml_type in GGML_BLOCK:
            tensor = dequantize(tensor, info.ggml_type).view(info.shape)
        if self.architecture.startswith("gemma") and name.endswith("norm.weight"):
            tensor = tensor.float() - 1.0  # llama.cpp multiplies by the weight, transformers' Gemma by 1 + weight.
        if self.architecture == "llama" and name.endswith(("attn_q.weight", "attn_k.weight")):
            heads = self.config.num_attention_heads if "attn_q" in name else self.config.num_key_value_heads
            # llama.cpp rotates adjacent pairs, transformers the two halves.
            tensor = tensor.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2)
        return tensor.to(dtype)

    def _config(self) -> PretrainedConfig:
        if "token_embd.weight" not in self._infos:
            raise UserError(f"{self.path} lacks token_embd.weight")
        config = decoder_config(
            self.path,
            self.metadata,
            vocab_size=self._infos["token_embd.weight"].shape[0],
            tie_word_embeddings="output.weight" not in self._infos,
        )
        if "rope_freqs.weight" in self._tensors:
            self._set_llama3_scaling(config)
        return config

    def _set_llama3_scaling(self, config: PretrainedConfig) -> None:
        """LLaMA 3.1's rope scaling, stored as one factor per frequency.

        Raises:
            UserError: the factors are of another scaling, or a key scales too.
        """
        if "full_attention" in config.rope_parameters or config.rope_parameters.get("rope_type") == "linear":
            raise UserError(f"{self.path} has rope_freqs.weight besides another scaling of its rotary positions")
        factors = self._tensor("rope_freqs.weight", torch.float32)
        plain = config.rope_parameters["rope_theta"] ** -(torch.arange(len(factors)) / len(factors))
        config.rope_parameters |= {
            "rope_type": "llama3",
            "factor": float(factors.max()),
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        }
        ours, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
        if not torch.allclose(ours, plain / factors, rtol=1e-3):
            raise UserError(f"{self.path} scales its rotary positions by factors that are not LLaMA 3.1's")
