"""Grok-1, which transformers lacks, from transformers' modules.

Source: the public release github.com/xai-org/grok-1, `model.py` (DecoderLayer, MultiHeadAttention, Router, MoELayer)
and `run.py` (the sizes of `Grok1Config`). Per layer, with an RMSNorm before and after both halves:

    h <- h + norm(attention(norm(h)))        logits of q k capped to 30 tanh(q k * multiplier / 30), GQA, rotary
    h <- h + norm(sum_{e in top 2} p_e expert_e(norm(h)))     p = softmax over all experts, not renormalised
    expert(x) = down (gelu(gate x) * up x)

Embeddings are multiplied by sqrt(hidden_size). The language head is not here: a policy has none.
Importing this file registers the family with transformers' AutoConfig and AutoModel.

Shape letters: B batch, T tokens, d hidden size, E experts, k experts per token.
"""

from __future__ import annotations

from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, PretrainedConfig
from transformers import initialization as init
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import Concatenate, MergeModulelist, WeightConverter, WeightRenaming
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.gemma2.modeling_gemma2 import Gemma2Attention, Gemma2TextScaledWordEmbedding
from transformers.models.mixtral.modeling_mixtral import (
    MixtralExperts,
    MixtralModel,
    MixtralPreTrainedModel,
    MixtralRMSNorm,
    MixtralRotaryEmbedding,
    MixtralTopKRouter,
)


@strict
class Grok1Config(PretrainedConfig):
    """Shape of a Grok-1; the defaults are the released model's 314 B parameters."""

    model_type = "grok-1"
    default_theta = 10_000.0
    attribute_map = {"num_experts": "num_local_experts", "max_attn_value": "attn_logit_softcapping"}  # noqa: RUF012

    vocab_size: int = 131_072
    hidden_size: int = 6144
    intermediate_size: int = 32_768
    """Hidden size of an expert."""
    num_hidden_layers: int = 64
    num_attention_heads: int = 48
    num_key_value_heads: int = 8
    head_dim: int = 128
    num_local_experts: int = 8
    num_experts_per_tok: int = 2
    hidden_act: str = "gelu_pytorch_tanh"
    max_position_embeddings: int = 8192
    attn_output_multiplier: float = 0.08838834764831845
    """Factor of q k."""
    attn_logit_softcapping: float | None = 30.0
    """Bound of the absolute value of attention logits."""
    embedding_multiplier_scale: float = 78.38367176906169
    output_multiplier_scale: float = 0.5773502691896257
    rms_norm_eps: float = 1e-5
    initializer_range: float = 0.02
    tie_word_embeddings: bool = True
    use_cache: bool = True
    attention_bias: bool = False
    attention_dropout: float | int = 0.0
    sliding_window: int | None = None
    pad_token_id: int = 0
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    rope_parameters: dict[str, Any] | None = None

    @property
    def query_pre_attn_scalar(self) -> float:
        """The multiplier in the form of Gemma 2's attention, which is used here."""
        return self.attn_output_multiplier**-2


class Grok1Router(MixtralTopKRouter):
    """Top-k router whose weights are not renormalised, in float32."""

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[B * T, d] -> logits float32 [B * T, E], weights float32 [B * T, k], experts int64 [B * T, k]."""
        with torch.autocast(hidden_states.device.type, enabled=False):
            logits = F.linear(hidden_states.float(), self.weight.float())
            weights, experts = logits.softmax(-1).topk(self.top_k, dim=-1)
        return logits, weights, experts


class Grok1SparseMoeBlock(nn.Module):
    """Experts of gated GELU, two per token."""

    def __init__(self, config: Grok1Config) -> None:
        super().__init__()
        self.gate = Grok1Router(config)
        self.experts = MixtralExperts(config)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """[B, T, d] -> [B, T, d]."""
        tokens = hidden_states.flatten(0, -2)
        _, weights, experts = self.gate(tokens)
        return self.experts(tokens, experts, weights).view_as(hidden_states)


class Grok1DecoderLayer(GradientCheckpointingLayer):
    """Attention and experts, each between two norms."""

    def __init__(self, config: Any, layer_idx: int) -> None:  # Grok1Config has the fields of Gemma 2's attention.
        super().__init__()
        self.attn = Gemma2Attention(config, layer_idx)
        self.moe_block = Grok1SparseMoeBlock(config)
        self.pre_attn_norm = MixtralRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attn_norm = MixtralRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.pre_moe_norm = MixtralRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_moe_norm = MixtralRMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, hidden_states: Tensor, **kwargs: Any) -> Tensor:
        """[B, T, d] -> [B, T, d]; mask, positions and cache pass through to the attention."""
        attended, _ = self.attn(self.pre_attn_norm(hidden_states), **kwargs)
        hidden_states = hidden_states + self.post_attn_norm(attended)
        mixed = self.moe_block(self.pre_moe_norm(hidden_states))
        return hidden_states + self.post_moe_norm(mixed)


class Grok1PreTrainedModel(MixtralPreTrainedModel):
    """Names and initialisation of weights."""

    config_class = Grok1Config
    _no_split_modules = ["Grok1DecoderLayer"]  # noqa: RUF012
    _supports_sdpa = False  # it has no soft cap
    _can_record_outputs = None

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, Gemma2TextScaledWordEmbedding):
            init.constant_(module.embed_scale, module.scalar_embed_scale)


class Grok1Model(Grok1PreTrainedModel, MixtralModel):
    """The decoder; its forward is Mixtral's, with other layers."""

    def __init__(self, config: Grok1Config) -> None:
        Grok1PreTrainedModel.__init__(self, config)
        self.embed_tokens = Gemma2TextScaledWordEmbedding(
            config.vocab_size, config.hidden_size, config.pad_token_id, embed_scale=config.embedding_multiplier_scale
        )
        self.layers = nn.ModuleList(Grok1DecoderLayer(config, i) for i in range(config.num_hidden_layers))
        self.norm = MixtralRMSNorm(config.hidden_size, config.rms_norm_eps)
        shape: Any = config  # It has the fields of Mixtral's rotary embedding.
        self.rotary_emb = MixtralRotaryEmbedding(shape)
        self.gradient_checkpointing = False
        self.post_init()


AutoConfig.register("grok-1", Grok1Config)
AutoModel.register(Grok1Config, Grok1Model)
# Names in folders converted from the release by others (hpcai-tech/grok-1 and its copies).
register_checkpoint_conversion_mapping(
    "grok-1",
    [
        WeightRenaming("norm.scale", "norm.weight"),
        WeightConverter(
            [".experts.*.linear.weight", ".experts.*.linear_v.weight"],
            ".experts.gate_up_proj",
            [MergeModulelist(dim=0), Concatenate(dim=1)],
        ),
        WeightConverter(".experts.*.linear_1.weight", ".experts.down_proj", [MergeModulelist(dim=0)]),
    ],
)
