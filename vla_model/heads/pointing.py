"""Pointing: heatmaps trained to localize the objects of the instruction in a camera's frame.

    L = mean over visible objects of  - sum_c t_c log p_c

p is a heatmap's softmax over its cells; t spreads 1 over the four cells around the object's true position with bilinear
weights, so that its expectation (the keypoint) is exactly that position. Classification among cells selects one of
several objects from the start, where regression of the expected position would first average over them. Labels come
from the simulator's state and are used in training only.

Shape letters: B batch, P objects, h x w cells, L localization numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vla_model.numerics.means import mean


@dataclass(frozen=True, kw_only=True)
class Pointing:
    """The pointing heatmaps of one camera."""

    logits: Tensor
    """[B, P, h, w]"""
    shift: Tensor
    """float32 [B, 2]: added to x, y in [-1, 1] of the augmented frame, it gives them in the original frame."""
    columns: list[list[int]]
    """`[P][2]`: columns of each object's u and v in a localization vector."""

    def loss_and_count(self, localization: Tensor) -> tuple[Tensor, Tensor]:
        """Summed loss of the objects that are in the frame, and their number.

        Args:
            localization: float32 [B, L] in the world's units: u to the right, v down, -1 and 1 at the frame's edges.
        """
        seen = take_columns(localization, [column for pair in self.columns for column in pair])  # [B, 2 P]
        position = seen.unflatten(1, (-1, 2)) - self.shift[:, None]  # [B, P, 2]
        num_rows, num_columns = self.logits.shape[2:]
        visible = (position.abs() < 1).all(-1)  # [B, P]
        across = _bilinear(position[..., 0], num_columns)  # [B, P, w]
        down = _bilinear(position[..., 1], num_rows)  # [B, P, h]
        target = (down[..., :, None] * across[..., None, :]).flatten(2)  # [B, P, h * w]
        loss = -(target * self.logits.flatten(2).float().log_softmax(-1)).sum(-1)  # [B, P]
        return (loss * visible).sum(), visible.sum()


def pointing_loss(pointings: Sequence[Pointing], localization: Tensor) -> Tensor:
    """Mean over all objects visible in any camera; 0 where there are none.

    Args:
        localization: as `Pointing.loss_and_count` takes it.
    """
    if not pointings:
        return localization.new_zeros(())
    losses, counts = zip(*(pointing.loss_and_count(localization) for pointing in pointings), strict=True)
    return mean(torch.stack(losses).sum(), torch.stack(counts).sum())


def take_columns(label: Tensor, columns: Sequence[int]) -> Tensor:
    """label[:, columns], [B, len(columns)]; indexing with a list would copy it to the GPU and synchronise."""
    return torch.stack([label[:, column] for column in columns], dim=1)


def _bilinear(x: Tensor, num_cells: int) -> Tensor:
    """Weights of the two cells whose centres (2 i + 1) / num_cells - 1 are next to x, [...] -> [..., num_cells]."""
    cell = ((x + 1) * num_cells - 1) / 2
    centres = torch.arange(num_cells, device=x.device)
    return (1 - (cell.clamp(0, num_cells - 1)[..., None] - centres).abs()).clamp(min=0)
