"""Generators of training."""

from __future__ import annotations

import torch

from agent.learning.generators import seeded_generator


def test_a_generator_is_determined_by_all_its_numbers_and_their_order() -> None:
    def numbers(*seed: int) -> list[float]:
        return torch.rand(2, generator=seeded_generator(*seed)).tolist()

    assert numbers(3, 7) == numbers(3, 7)
    assert len({tuple(numbers(*seed)) for seed in ((3, 7), (7, 3), (3, 7, 1), (3, 8))}) == 4
