"""Grok-1 with its language head, as transformers has of the other families; importing this registers it."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from transformers.modeling_outputs import CausalLMOutputWithPast

from vla_model.backbones.grok import Grok1Config, Grok1Model, Grok1PreTrainedModel


class Grok1ForCausalLM(Grok1PreTrainedModel):
    """The decoder with a language head."""

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012

    def __init__(self, config: Grok1Config) -> None:
        super().__init__(config)
        self.model = Grok1Model(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def forward(self, input_ids: Tensor, **kwargs: Any) -> CausalLMOutputWithPast:
        """int64 [B, T] -> logits [B, T, V]."""
        output = self.model(input_ids, **kwargs)
        logits = self.lm_head(output.last_hidden_state) * self.config.output_multiplier_scale
        return CausalLMOutputWithPast(logits=logits, cache=output.cache)


AutoModelForCausalLM.register(Grok1Config, Grok1ForCausalLM)
