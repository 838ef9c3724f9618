"""The published sizes of the families: decoders of transformers' classes, and Grok-1.

A preset is a config without weights: a model of it is random. `backbones/pretrained.py` loads pretrained weights. A new
family is one function here and, if transformers lacks it, one file like grok.py. The names are options of commands, so
importing this does not load transformers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PretrainedConfig

FAMILIES = {
    "llama": "LLaMA 1 to 3.2 and what shares their architecture",
    "mistral": "Mistral",
    "mixtral": "Mixtral",
    "gemma": "Gemma",
    "gemma2": "Gemma 2",
    "gemma3_text": "Gemma 3",
    "grok-1": "Grok-1",
}
"""{transformers' model_type: name} of the tested decoders."""


def _config(family: str, **shape: Any) -> Callable[[], PretrainedConfig]:
    """A function that makes a config of a family of transformers."""

    def config() -> PretrainedConfig:
        from transformers import AutoConfig

        return AutoConfig.for_model(family, **shape)

    return config


def _llama(width: int, layers: int, heads: int, intermediate: int, **others: Any) -> Callable[[], PretrainedConfig]:
    return _config(
        "llama",
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=intermediate,
        **others,
    )


def _llama2(*shape: int, **others: Any) -> Callable[[], PretrainedConfig]:
    return _llama(*shape, max_position_embeddings=4096, rms_norm_eps=1e-5, **others)


def _llama3(*shape: int, scaling: float | None = None, **others: Any) -> Callable[[], PretrainedConfig]:
    """LLaMA 3; with rope scaling, LLaMA 3.1 and 3.2."""
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": 500_000.0}
    if scaling:
        rope |= {"rope_type": "llama3", "factor": scaling, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
        rope |= {"original_max_position_embeddings": 8192}
    return _llama(
        *shape,
        vocab_size=128_256,
        num_key_value_heads=8,
        rope_parameters=rope,
        max_position_embeddings=131_072 if scaling else 8192,
        rms_norm_eps=1e-5,
        bos_token_id=128_000,
        eos_token_id=128_001,
        **others,
    )


def _gemma(
    width: int, layers: int, heads: int, key_value_heads: int, intermediate: int
) -> Callable[[], PretrainedConfig]:
    return _config(
        "gemma",
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_value_heads,
        intermediate_size=intermediate,
    )


def _grok1() -> PretrainedConfig:
    from vla_model.backbones.grok import Grok1Config

    return Grok1Config()


PRESETS: dict[str, Callable[[], PretrainedConfig]] = {
    # Touvron et al. 2023, "LLaMA", table 2.
    "llama1_7b": _llama(4096, 32, 32, 11_008),
    "llama1_13b": _llama(5120, 40, 40, 13_824),
    "llama1_33b": _llama(6656, 60, 52, 17_920),
    "llama1_65b": _llama(8192, 80, 64, 22_016),
    "llama2_7b": _llama2(4096, 32, 32, 11_008),
    "llama2_13b": _llama2(5120, 40, 40, 13_824),
    "llama2_70b": _llama2(8192, 80, 64, 28_672, num_key_value_heads=8),
    "llama3_8b": _llama3(4096, 32, 32, 14_336),
    "llama3_70b": _llama3(8192, 80, 64, 28_672),
    "llama3.1_405b": _llama3(16_384, 126, 128, 53_248, scaling=8.0),
    "llama3.2_1b": _llama3(2048, 16, 32, 8192, scaling=32.0, tie_word_embeddings=True),
    "llama3.2_3b": _llama3(3072, 28, 24, 8192, scaling=32.0, tie_word_embeddings=True),
    "mistral_7b": _config("mistral", max_position_embeddings=32_768, sliding_window=4096, rms_norm_eps=1e-5),
    "mixtral_8x7b": _config("mixtral"),
    "mixtral_8x22b": _config(
        "mixtral",
        hidden_size=6144,
        intermediate_size=16_384,
        num_hidden_layers=56,
        num_attention_heads=48,
        max_position_embeddings=65_536,
    ),
    "gemma_2b": _gemma(2048, 18, 8, 1, 16_384),
    "gemma_7b": _gemma(3072, 28, 16, 16, 24_576),
    "grok_314b": _grok1,
}
"""{name: function that returns the decoder's config, tying of the language head included} of the published sizes."""
