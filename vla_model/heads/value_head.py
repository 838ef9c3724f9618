"""The value head: hidden states of the action queries -> the estimated return-to-go at each action of the chunk.

One value per action, not per chunk, gives each action its own advantage (RLinf-VLA, Zang et al. 2025, compare both). An
MLP on the decoder's output, beside the action head, as in pi_RL (Chen et al. 2025).

Its input is detached, so the value loss trains the head alone. A new head can be warmed up on a trained policy without
changing the policy, and the two losses need no weight between them. The cost: the decoder does not learn features for
the critic.

Shape letters: B batch, K chunk size, d decoder width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_LAST_LAYER_STD = 0.02
"""Of the last layer's initial weights: values begin near 0."""


class ValueHead(nn.Module):
    """Three layers, in float32 whatever the model computes in."""

    def __init__(self, size: int) -> None:
        super().__init__()
        last = nn.Linear(size, 1)
        nn.init.normal_(last.weight, std=_LAST_LAYER_STD)
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(nn.Linear(size, size), nn.GELU(), nn.Linear(size, size), nn.GELU(), last)

    def forward(self, hidden: Tensor) -> Tensor:
        """[B, K, d] -> float32 [B, K]."""
        with torch.autocast(hidden.device.type, enabled=False):
            return self.layers(hidden.detach().float()).squeeze(-1)
