"""Noise that lasts: an episode's draws, each of which resembles the one for the action before.

    z_t, standard normals with a correlation of c from one to the next (numerics/correlated_noise.py)     u_t = Phi(z_t)

t counts executed actions, also across decisions. Every z_t is a standard normal and every u_t uniform, so each action
on its own is distributed as without, and its log-probability is what it was. What follows from several together is
not: where actions are small motions that add up, independent noise takes itself back, and c widens what is tried by
up to sqrt((1 + c) / (1 - c)) times. Policy gradients that score each action on its own gain from it (Hollenstein et
al. 2024, "Colored Noise in PPO", section 4; Lillicrap et al. 2016 has it for deterministic policies).

Shape letters: K chunk length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from vla_model.numerics.correlated_noise import next_noise

_BELOW_ONE = 1.0 - 2.0**-24
"""The largest float32 below 1: uniform draws are below 1."""


class CorrelatedNoise:
    """The random numbers of one episode's chunks."""

    def __init__(self, generator: torch.Generator, correlation: float, n_action_steps: int | None) -> None:
        """
        Args:
            generator: of the random numbers.
            correlation: c, from 0 to below 1.
            n_action_steps: actions executed of each chunk, after which the next chunk's noise goes on; None for all.
        """
        self._generator = generator
        self._correlation = correlation
        self._n_action_steps = n_action_steps
        self._last: Tensor | None = None

    def __call__(self, sampler: Callable[..., Tensor], shape: Sequence[int]) -> Tensor:
        """What torch.rand or torch.randn would give for that shape [K, ...], on the generator's device."""
        fresh = torch.randn(shape, generator=self._generator, device=self._generator.device)
        steps: list[Tensor] = []
        last = self._last
        for noise in fresh:
            last = next_noise(last, noise, self._correlation)
            steps.append(last)
        self._last = steps[(self._n_action_steps or len(steps)) - 1]
        normal = torch.stack(steps)
        if sampler is torch.randn:
            return normal
        return torch.special.ndtr(normal.double()).float().clamp(max=_BELOW_ONE)
