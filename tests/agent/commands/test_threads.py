"""How many torch threads a command uses for its policy."""

from __future__ import annotations

from collections.abc import Generator

import pytest
import torch
from torch import nn

from agent.commands.shared import options
from agent.commands.shared.options import limit_threads


class _Policy:
    """A policy of that many parameters, which only counts."""

    def __init__(self, num_parameters: int) -> None:
        self.model = nn.Module()
        self.model.weight = nn.Parameter(torch.zeros(num_parameters))


@pytest.fixture(autouse=True)
def four_threads() -> Generator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("num_parameters", "spared", "expected"), [(99, 0, 1), (99, 1, 1), (100, 0, 4), (100, 1, 3)])
def test_a_small_policy_uses_one_thread_and_a_larger_one_all_that_are_not_spared(
    num_parameters: int, spared: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(options, "_SMALL_MODEL", 100)
    limit_threads(_Policy(num_parameters), spared_cores=spared)  # ty: ignore[invalid-argument-type]
    assert torch.get_num_threads() == expected


def test_the_expert_needs_one_thread() -> None:
    limit_threads(None)
    assert torch.get_num_threads() == 1
