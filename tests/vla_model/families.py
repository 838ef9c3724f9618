"""A toy decoder of every family."""

from __future__ import annotations

from typing import Any

from transformers import (
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    PretrainedConfig,
)

from vla_model.backbones.grok import Grok1Config

_LLAMA31: dict[str, Any] = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def toy_configs() -> dict[str, PretrainedConfig]:
    """Two layers each; Gemma 3 six, because the sixth is the first without a window. Windows are of 8 tokens."""
    size: dict[str, Any] = {
        "vocab_size": 2048,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    grouped: dict[str, Any] = size | {"num_key_value_heads": 2}
    heads: dict[str, Any] = grouped | {"head_dim": 16}
    experts: dict[str, Any] = {"num_local_experts": 4, "num_experts_per_tok": 2}
    wide: dict[str, Any] = grouped | {"vocab_size": 128_256}
    single: dict[str, Any] = heads | {"num_key_value_heads": 1}
    six: dict[str, Any] = heads | {"num_hidden_layers": 6}
    kinds = ["sliding_attention", "full_attention"]
    return {
        "llama1": LlamaConfig(**size),
        "llama2": LlamaConfig(**grouped, rms_norm_eps=1e-5),
        "llama3": LlamaConfig(**wide, rope_parameters={"rope_type": "default", "rope_theta": 5e5}),
        "llama3.1": LlamaConfig(**grouped, rope_parameters=dict(_LLAMA31), max_position_embeddings=131_072),
        "mistral": MistralConfig(**grouped, sliding_window=8),
        "mixtral": MixtralConfig(**grouped, **experts),
        "gemma": GemmaConfig(**single),
        "gemma2": Gemma2Config(**heads, sliding_window=8, layer_types=kinds, query_pre_attn_scalar=16),
        "gemma3": Gemma3TextConfig(**six, sliding_window=8, query_pre_attn_scalar=16),
        "grok": Grok1Config(**heads, **experts, attn_output_multiplier=0.25, embedding_multiplier_scale=32**0.5),
    }
