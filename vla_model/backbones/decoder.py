"""The decoder: a LLaMA-family model of transformers, or Grok-1, on embeddings, in two parts.

    [instruction tokens] | [past observations][image tokens, camera by camera][state token][action queries]
         the prefix      |                                       the rest

Attention is causal, so the prefix does not depend on the rest: an instruction's keys and values are computed once per
episode (`InstructionPrefix`), and each call of the policy runs only the rest. Training runs the same two steps, with
gradients through both, so rollout and training are the same computation.

Padded instruction tokens are masked, and the rest always begins at position I, whatever the length of an instruction.
Padding changes only how attention's sums are rounded. Training therefore omits tokens that are padding in the whole
batch (VLA.encode_instruction); a policy that acts does not, because its actions in one world would depend, in their
last bits, on the instructions of the others. For layers with a sliding window, the prefix is padded to I, so that
distances count positions. The cache is a plain one for the same reason: a sliding-window cache would drop tokens
outside the window.

Shape letters: B batch, I instruction tokens (padded), R tokens of the rest, d decoder width, h key-value heads, c head
size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModel, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

import vla_model.backbones.grok  # noqa: F401  (registers Grok-1 with transformers)
from envs.errors import UserError
from vla_model.config import VLAConfig
from vla_model.numerics.tensors import TensorBatch


@dataclass(frozen=True, kw_only=True)
class InstructionPrefix(TensorBatch):
    """The key-value cache of B instructions."""

    keys_values: tuple[tuple[Tensor, Tensor], ...]
    """Per layer, keys and values [B, h, I, c] each."""
    mask: Tensor
    """bool [B, I], False where padded."""
    summary: Tensor
    """[B, d], mean of the last hidden states of the real tokens, which conditions the vision towers."""

    def padded(self, length: int) -> InstructionPrefix:
        """The same prefix, padded with masked tokens to `length`."""
        missing = length - self.mask.shape[1]
        return InstructionPrefix(
            keys_values=tuple(
                (F.pad(keys, (0, 0, 0, missing)), F.pad(values, (0, 0, 0, missing)))
                for keys, values in self.keys_values
            ),
            mask=F.pad(self.mask, (0, missing)),
            summary=self.summary,
        )

    @staticmethod
    def concatenate(parts: Sequence[InstructionPrefix]) -> InstructionPrefix:
        """All rows of several prefixes of the same length."""
        layers = zip(*(part.keys_values for part in parts), strict=True)
        return InstructionPrefix(
            keys_values=tuple(
                (torch.cat([keys for keys, _ in layer]), torch.cat([values for _, values in layer])) for layer in layers
            ),
            mask=torch.cat([part.mask for part in parts]),
            summary=torch.cat([part.summary for part in parts]),
        )


class Backbone(nn.Module):
    """A transformers decoder run in two parts, prefix and rest."""

    def __init__(self, config: VLAConfig, decoder: PreTrainedModel | None = None) -> None:
        """
        Args:
            decoder: a pretrained one of config.backbone's shape; a random one where None.

        Raises:
            UserError: the longest sequence has more tokens than the decoder has positions for.
        """
        super().__init__()
        _check_length(config)
        self.rest_position = config.instruction_length
        self.decoder = decoder or AutoModel.from_config(config.backbone)
        self.decoder.set_attn_implementation(config.attention)
        self.dtype = self.decoder.dtype  # of activations, whatever the format of the weights later
        self.has_window = getattr(config.backbone, "sliding_window", None) is not None

    def prefill(self, ids: Tensor, mask: Tensor) -> InstructionPrefix:
        """The prefix of instructions, padding included.

        Args:
            ids: int64 [B, I].
            mask: bool [B, I], False where padded.
        """
        cache = DynamicCache()
        hidden = self.decoder(
            inputs_embeds=self.decoder.get_input_embeddings()(ids).to(self.dtype),
            attention_mask=mask,
            position_ids=torch.arange(ids.shape[1], device=ids.device)[None],
            cache=cache,
            use_cache=True,
        ).last_hidden_state.float()  # [B, I, d]
        weights = mask / mask.sum(1, keepdim=True)  # [B, I]
        return InstructionPrefix(
            keys_values=tuple(_keys_values(layer) for layer in cache.layers),
            mask=mask,
            summary=(weights[:, :, None] * hidden).sum(1),
        )

    def forward(self, prefix: InstructionPrefix, rest: Tensor) -> Tensor:
        """Last hidden states of the rest [B, R, d], of the same shape. The prefix is not changed."""
        batch, num_tokens, _ = rest.shape
        if self.has_window:
            prefix = prefix.padded(self.rest_position)
        seen = torch.ones(batch, num_tokens, dtype=torch.bool, device=rest.device)
        return self.decoder(
            inputs_embeds=rest.to(self.dtype),
            attention_mask=torch.cat([prefix.mask, seen], dim=1),
            position_ids=torch.arange(num_tokens, device=rest.device)[None] + self.rest_position,
            cache=DynamicCache(prefix.keys_values),
            use_cache=True,
        ).last_hidden_state.to(rest.dtype)


def _check_length(config: VLAConfig) -> None:
    """Rope scaling that depends on the sequence length would rotate prefix and rest by different frequencies, so
    sequences must stay below it: "dynamic" begins beyond the config's positions, "longrope" beyond the original ones.
    """
    rope = getattr(config.backbone, "rope_parameters", None) or {}
    positions = getattr(config.backbone, "max_position_embeddings", config.num_tokens)
    if rope.get("rope_type") == "longrope":
        positions = min(positions, rope.get("original_max_position_embeddings", positions))
    if config.num_tokens > positions:
        raise UserError(
            f"a sequence takes up to {config.num_tokens} tokens (an instruction of {config.instruction_length}, "
            f"{config.history_length + 1} observations, {config.chunk_size} action queries), but the decoder has "
            f"{positions} positions"
        )


def _keys_values(layer: object) -> tuple[Tensor, Tensor]:
    assert isinstance(layer, DynamicLayer) and layer.keys is not None and layer.values is not None
    return layer.keys, layer.values
