"""The value head: hidden states of the action queries -> the return-to-go expected at each action of the chunk.

One value per action, not per chunk: with it, each action has an advantage of its own (RLinf-VLA, Zang et al. 2025,
compare both). An MLP behind the decoder and beside the action head, as in pi_RL (Chen et al. 2025).

Its input is detached: the value's gradient stays in the head. The policy is then the same whatever the critic does, so
a fresh head can be added to a trained policy and warmed up without moving it, and no weight has to balance the two
losses. What it costs: the critic reads what acting needs, and cannot ask the decoder for more.

Shape letters: B batch, K chunk length, d decoder width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_LAST_LAYER_STD = 0.02
"""Of the last layer's first weights: values begin near 0."""


class ValueHead(nn.Module):
    """Three layers, in float32 whatever the rest computes in."""

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
