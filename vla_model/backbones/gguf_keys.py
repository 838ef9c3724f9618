"""The metadata keys of a GGUF file as a transformers config of its decoder.

llama.cpp reads the keys it knows of each architecture and has defaults for missing ones. Here each key of the
architecture is a field of the config, a key that matters only for next-token scores, or a key whose only supported
value is neutral. Any other key or value would change outputs, so the file is rejected with its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from transformers import (
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    PretrainedConfig,
)

from envs.errors import UserError
from vla_model.backbones.grok import Grok1Config

CONFIGS: dict[str, type[PretrainedConfig]] = {
    "llama": LlamaConfig,
    "gemma": GemmaConfig,
    "gemma2": Gemma2Config,
    "gemma3": Gemma3TextConfig,
    "grok": Grok1Config,
}
"""llama.cpp's general.architecture. It calls LLaMA, Mistral and Mixtral all "llama"."""

_NEEDED = {
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "context_length": "max_position_embeddings",
    "attention.head_count": "num_attention_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
}
"""Keys that llama.cpp requires too, and their config fields."""
_WINDOW = {"attention.sliding_window": "sliding_window"}
_CAP = {"attn_logit_softcapping": "attn_logit_softcapping"}
_EXPERTS = {"expert_count": "num_local_experts", "expert_used_count": "num_experts_per_tok"}
_OF = {
    "llama": _WINDOW | _EXPERTS,
    "gemma": {},
    "gemma2": _WINDOW | _CAP,
    "gemma3": _WINDOW,
    "grok": _CAP
    | _EXPERTS
    | {"attention.output_scale": "attn_output_multiplier", "embedding_scale": "embedding_multiplier_scale"},
}
"""Optional keys of an architecture. llama.cpp's defaults are the config's."""
_OF_SCORES = {"vocab_size", "logit_scale", "final_logit_softcapping", "pooling_type", "tensor_data_layout"}
"""Keys of next-token scores, of the file's layout, or redundant with the tensors."""
_NEUTRAL: dict[str, tuple[object, ...]] = {
    "attention.causal": (True,),
    "attention.clamp_kqv": (0.0,),
    "attention.max_alibi_bias": (0.0,),
    "attention.scale": (0.0,),
    "expert_gating_func": (0, 1),  # unspecified, softmax
    "expert_group_count": (0, 1),
    "expert_group_used_count": (0, 1),
    "expert_shared_count": (0,),
    "expert_weights_scale": (0.0, 1.0),
    "leading_dense_block_count": (0,),
    "residual_scale": (0.0, 1.0),
    "rope.scaling.attn_factor": (1.0,),
    "router_logit_softcapping": (0.0,),
    "use_parallel_residual": (False,),
}
"""Keys that may only have one of these neutral values."""

T = TypeVar("T")


def decoder_config(path: Path, metadata: Mapping[str, Any], **fields: Any) -> PretrainedConfig:
    """The config of the file's decoder, except rope scaling that is stored as a tensor.

    Args:
        path: of the file, for errors.
        metadata: its keys and values.
        fields: config fields that come from the tensors.

    Raises:
        UserError: a key is missing, or has an unsupported value; the message names it.
    """
    architecture = metadata["general.architecture"]
    keys = _Keys(path, architecture, metadata)
    fields |= {ours: keys.take(theirs) for theirs, ours in _NEEDED.items()}
    heads, width = fields["num_attention_heads"], fields["hidden_size"]
    fields["num_key_value_heads"] = keys.take("attention.head_count_kv", heads)
    size = fields["head_dim"] = keys.take("attention.key_length", width // heads)
    keys.allow("attention.value_length", size)
    keys.allow("rope.dimension_count", size)
    for theirs, ours in _OF[architecture].items():
        if (value := keys.take(theirs, None)) is not None:
            fields[ours] = value
    kind = CONFIGS[architecture]
    if architecture == "llama" and not fields.get("num_local_experts"):
        fields = {name: value for name, value in fields.items() if name not in _EXPERTS.values()}
        kind = MistralConfig if fields.get("sliding_window") else LlamaConfig
    elif architecture == "llama":
        kind = MixtralConfig
        keys.allow("expert_weights_norm", True)
    elif architecture == "grok":
        keys.allow("expert_weights_norm", False)
    if fields.get("num_local_experts"):
        keys.allow("expert_feed_forward_length", fields["intermediate_size"])
        fields["num_experts_per_tok"] = fields.get("num_experts_per_tok") or keys.take("expert_used_count")
    if architecture in ("gemma2", "gemma3"):
        fields["query_pre_attn_scalar"] = _query_scalar(fields)
        if kinds := keys.kinds_of_layers(fields["num_hidden_layers"]):
            fields["layer_types"] = kinds
    try:
        config = kind(**fields)
    except (TypeError, ValueError) as error:  # transformers checks the types of fields
        raise UserError(f"{path} has a key with a value of another type: {error}") from error
    _set_rope(config, keys)
    keys.reject_others()
    return config


def _query_scalar(fields: dict[str, Any]) -> int:
    """The square of the divisor of attention logits. Files lack it for the 27 B models, whose value differs."""
    if fields["num_hidden_layers"] in (46, 62):
        return fields["hidden_size"] // fields["num_attention_heads"]
    return fields["head_dim"]


def _set_rope(config: PretrainedConfig, keys: _Keys) -> None:
    """Frequencies as llama.cpp computes them: a factor without a type is linear scaling, 0 none."""
    rope = config.rope_parameters.get("full_attention", config.rope_parameters)  # Gemma 3 has one per kind of layer.
    rope["rope_theta"] = keys.take("rope.freq_base", 10_000.0)
    if "sliding_attention" in config.rope_parameters:
        window = config.rope_parameters["sliding_attention"]
        window["rope_theta"] = keys.take("rope.freq_base_swa", window["rope_theta"])
        keys.allow("rope.dimension_count_swa", config.head_dim)
    keys.allow("rope.scaling.type", "linear", "none")
    kind = keys.take("rope.scaling.type", "linear")
    factor = keys.take("rope.scaling.factor", keys.take("rope.scale_linear", 0.0))
    for of_other_kinds in ("rope.scaling.original_context_length", "rope.scaling.finetuned"):
        keys.take(of_other_kinds, None)
    if kind == "linear" and factor not in (0.0, 1.0):
        rope |= {"rope_type": "linear", "factor": factor}


class _Keys:
    """The keys of one file's architecture; those that are never read are rejected at the end."""

    def __init__(self, path: Path, architecture: str, metadata: Mapping[str, Any]) -> None:
        self.path = path
        self._prefix = f"{architecture}."
        prefix = self._prefix
        self._given = {key.removeprefix(prefix): value for key, value in metadata.items() if key.startswith(prefix)}
        self._read = set(_OF_SCORES)

    def take(self, name: str, *default: T) -> Any | T:
        """The key's value, or the default.

        Raises:
            UserError: it is missing and has no default, or its values differ between layers.
        """
        self._read.add(name)
        if name not in self._given:
            if default:
                return default[0]
            raise UserError(f"{self.path} lacks the key {self._prefix}{name}; take another file of the model")
        value = self._given[name]
        if isinstance(value, list):
            if len(set(value)) != 1:
                raise UserError(
                    f"{self.path} has different values of {self._prefix}{name} per layer, which is not supported"
                )
            return value[0]
        return value

    def allow(self, name: str, *values: object) -> None:
        """
        Raises:
            UserError: the key exists and has another value.
        """
        value = self.take(name, values[0])
        if value not in values:
            raise UserError(
                f"{self.path} has {self._prefix}{name} = {value}, which is not supported; "
                f"known: {', '.join(map(str, values))}"
            )

    def kinds_of_layers(self, num_layers: int) -> list[str] | None:
        """Which layers have a sliding window: all but each n-th, or those that the key lists; None without the key."""
        name = "attention.sliding_window_pattern"
        self._read.add(name)
        pattern = self._given.get(name)
        if pattern is None:
            return None
        each = pattern if isinstance(pattern, list) else [bool((i + 1) % pattern) for i in range(num_layers)]
        if len(each) != num_layers:
            raise UserError(f"{self.path} has {len(each)} values of {self._prefix}{name} for {num_layers} layers")
        return ["sliding_attention" if windowed else "full_attention" for windowed in each]

    def reject_others(self) -> None:
        """
        Raises:
            UserError: a key or its value is not supported.
        """
        for name, values in _NEUTRAL.items():
            self.allow(name, *values)
        others = sorted(self._prefix + name for name in self._given.keys() - self._read)
        if others:
            raise UserError(
                f"{self.path} has keys that may change what the model computes and are not supported: "
                f"{', '.join(others)}"
            )
