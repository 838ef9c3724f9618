"""Temporally correlated (AR(1)) exploration noise over the actions of an episode.

    z_t, standard normals with a correlation of c from one to the next (numerics/correlated_noise.py)     u_t = Phi(z_t)

t counts executed actions, also across chunks. Every z_t is a standard normal and every u_t uniform, so the marginal
distribution of each action, and with it its log-probability, stays the same. The joint distribution does not: where
actions are small motions that add up, independent noise averages out, and correlated noise explores up to
sqrt((1 + c) / (1 - c)) times as far. Policy gradients that score each action on its own gain from it (Hollenstein et
al. 2024, "Colored Noise in PPO", section 4; Lillicrap et al. 2016 use it for deterministic policies).

Shape letters: K chunk size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from vla_model.numerics.correlated_noise import next_noise

_BELOW_ONE = 1.0 - 2.0**-24
"""The largest float32 below 1: uniform numbers are below 1."""


class CorrelatedNoise:
    """The random numbers of one episode's chunks."""

    def __init__(self, generator: torch.Generator, correlation: float, n_action_steps: int | None) -> None:
        """
        Args:
            generator: of the random numbers.
            correlation: c, from 0 to below 1.
            n_action_steps: actions executed of each chunk, after which the next chunk's noise continues; None for all.
        """
        self._generator = generator
        self._correlation = correlation
        self._n_action_steps = n_action_steps
        self._last: Tensor | None = None

    def __call__(self, sampler: Callable[..., Tensor], shape: Sequence[int]) -> Tensor:
        """Correlated numbers in place of torch.rand's or torch.randn's, [K, ...], on the generator's device."""
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
