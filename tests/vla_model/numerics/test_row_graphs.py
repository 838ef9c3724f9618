"""A function of rows in buffers of a power of two of rows. That a graph repeats it needs a GPU; the buffers do not."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from vla_model.numerics.row_graphs import RowGraphs

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@dataclass(frozen=True)
class Kept:
    pairs: tuple[tuple[Tensor, Tensor], ...]


def weighted(rows: dict[str, Tensor], kept: Kept) -> Tensor:
    ((a, b),) = kept.pairs
    return rows["x"] * a + b


def rows(size: int, device: str) -> dict[str, Tensor]:
    return {"x": torch.arange(float(size), device=device)[:, None]}


@pytest.mark.parametrize("device", DEVICES)
def test_the_first_rows_are_what_the_function_gives_for_any_number_of_rows(device: str) -> None:
    calls: list[int] = []

    def counting(batch: dict[str, Tensor], kept: Kept) -> Tensor:
        calls.append(len(batch["x"]))
        return weighted(batch, kept)

    graphs = RowGraphs(counting)
    for size in (5, 3, 8, 1, 6, 5):
        a, b = torch.rand(2, size, 1, device=device)
        batch, kept = rows(size, device), Kept(((a, b),))
        assert torch.equal(graphs(batch, kept)[:size], weighted(batch, kept))
    assert set(calls) == {8, 4, 1}


@pytest.mark.parametrize("device", DEVICES)
def test_what_is_kept_is_copied_once_per_object(device: str) -> None:
    graphs = RowGraphs(weighted)
    one, two = (Kept(((torch.full((2, 1), a, device=device), torch.zeros(2, 1, device=device)),)) for a in (1.0, 2.0))
    assert graphs(rows(2, device), one)[:2, 0].tolist() == [0.0, 1.0]
    assert graphs(rows(2, device), two)[:2, 0].tolist() == [0.0, 2.0]
    two.pairs[0][0].fill_(9.0)
    assert graphs(rows(2, device), two)[:2, 0].tolist() == [0.0, 2.0], "the same object is not looked at again"
    assert graphs(rows(2, device), one)[:2, 0].tolist() == [0.0, 1.0]
