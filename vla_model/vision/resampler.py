"""Features of any number of cells -> a fixed number of vectors, the later image tokens.

    means       g x g means over equal parts of the frame
    queries     Q learned queries attend to all cells:   q <- q + Attention(norm(q), norm(cells + positions))
                                                         q <- q + MLP(norm(q))
                one layer of the Perceiver resampler (Alayrac et al. 2022, "Flamingo", section 2.1)

Positions are Fourier features of the cells' centres in [-1, 1], so they do not depend on the frame's size.

Shape letters: B batch, C channels, h x w cells, g side of the grid of means, Q queries, a heads, c size of a head.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from envs.errors import UserError

_FREQUENCIES = 4
_HEAD_SIZE = 16


class Means(nn.Module):
    """g x g means, row by row."""

    def __init__(self, grid: int) -> None:
        super().__init__()
        self.num_tokens = grid**2
        self.pool = nn.AdaptiveAvgPool2d(grid)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, g * g, C]."""
        return self.pool(x).flatten(2).transpose(1, 2)


class Queries(nn.Module):
    """Q learned queries that attend to the cells."""

    def __init__(self, channels: int, num_queries: int) -> None:
        """
        Raises:
            UserError: the channels are no multiple of the head size.
        """
        super().__init__()
        if channels % _HEAD_SIZE:
            raise UserError(f"image queries need channels in multiples of {_HEAD_SIZE}, got {channels}")
        self.num_tokens = num_queries
        self.queries = nn.Parameter(torch.randn(num_queries, channels) * 0.02)
        self.to_position = nn.Linear(4 * _FREQUENCIES, channels)
        self.query_norm, self.cell_norm, self.mlp_norm = (nn.LayerNorm(channels) for _ in range(3))
        self.to_queries = nn.Linear(channels, channels)
        self.to_keys_values = nn.Linear(channels, 2 * channels)
        self.to_output = nn.Linear(channels, channels)
        self.mlp = nn.Sequential(nn.Linear(channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, Q, C]."""
        cells = x.flatten(2).transpose(1, 2) + self.to_position(cell_positions(*x.shape[2:], x.device))
        keys, values = self.to_keys_values(self.cell_norm(cells)).chunk(2, dim=-1)
        queries = self.queries.expand(len(x), -1, -1)
        heads = [_heads(t) for t in (self.to_queries(self.query_norm(queries)), keys, values)]
        # Plain softmax: the fused attention's bf16 backward is slow on CPUs.
        weights = (heads[0] @ heads[1].mT / math.sqrt(_HEAD_SIZE)).softmax(-1)  # [B, a, Q, h * w]
        gathered = (weights @ heads[2]).transpose(1, 2).flatten(2)  # [B, Q, C]
        queries = queries + self.to_output(gathered)
        return queries + self.mlp(self.mlp_norm(queries))


def cell_centres(num_rows: int, num_columns: int, device: torch.device) -> Tensor:
    """x, to the right, and y, down, of each cell's centre, row by row, [h * w, 2].

    Cell i of w is at (2 i + 1) / w - 1; the frame's edges are at -1 and 1.
    """
    x = (2 * torch.arange(num_columns, device=device) + 1) / num_columns - 1
    y = (2 * torch.arange(num_rows, device=device) + 1) / num_rows - 1
    return torch.stack([x.repeat(num_rows), y.repeat_interleave(num_columns)], dim=-1)


def cell_positions(num_rows: int, num_columns: int, device: torch.device) -> Tensor:
    """Sines, then cosines, of each cell's centre, x then y, at doubling frequencies, [h * w, 16]."""
    centres = cell_centres(num_rows, num_columns, device)
    angles = (centres[..., None] * math.pi / 2 * 2.0 ** torch.arange(_FREQUENCIES, device=device)).flatten(1)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def _heads(x: Tensor) -> Tensor:
    """[B, T, C] -> [B, a, T, c]."""
    return x.unflatten(2, (-1, _HEAD_SIZE)).transpose(1, 2)
