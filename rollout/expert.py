"""The scripted expert as a policy, with noise injected into its executed actions and never into its labels.

In a share of the episodes the executed action is the expert's action plus temporally correlated noise,

    e_t = s z_t,   z_0 = w_0,   z_t = c z_{t-1} + sqrt(1 - c^2) w_t,   w_t ~ Normal(0, 1)   (AR(1); s: noise_std)

so the arm visits states off the expert's path and the labels recover from them (Laskey et al. 2017, "DART: Noise
Injection for Robust Imitation Learning", arXiv 1703.09327, with a fixed noise scale instead of a fitted one). Gripper
commands get no noise: a grasp opened at random makes no useful label.

Shape letters: N worlds, n of them that act, A action dims.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from envs.arrays import to_numpy
from envs.types import Observation
from envs.world import World
from vla_model.numerics.correlated_noise import next_noise
from vla_model.types import ActionChunk

_NOISE_STREAM = 0x6E6F6973
"""Separates this generator from others seeded by the same episode."""


class ExpertPolicy:
    """Policy of chunk size 1 over `world.expert_action()`; it must act in that same world.

    Whether an episode is noisy, and its noise, depend on the episode's seed alone.
    """

    version = -1

    def __init__(
        self, world: World, *, noise_std: float = 0.0, noise_share: float = 0.5, noise_correlation: float = 0.8
    ) -> None:
        """
        Args:
            world: its expert acts.
            noise_std: standard deviation of the noise, in units of the action range [-1, 1]; 0 for none.
            noise_share: probability that an episode is noisy.
            noise_correlation: correlation of the noise at successive steps, in [0, 1).
        """
        action = world.world_spec.action
        self._world = world
        self._std = noise_std
        self._share = noise_share
        self._correlation = noise_correlation
        self._takes_noise = ~action.is_gripper  # [A]
        self._noise = np.zeros((world.num_envs, action.size))  # [N, A], z_t; 0 in episodes without noise
        self._generators: dict[int, np.random.Generator] = {}

    def begin(self, worlds: Sequence[int], instructions: tuple[str, ...], seeds: tuple[int, ...]) -> None:
        for n, seed in zip(worlds, seeds, strict=True):
            generator = np.random.default_rng([_NOISE_STREAM, seed])
            noisy = generator.random() < self._share and self._std > 0
            self._generators.pop(n, None)
            self._noise[n] = 0.0
            if noisy:
                self._generators[n] = generator
                self._noise[n] = generator.standard_normal(self._noise.shape[1])

    def act(self, worlds: Sequence[int], observation: Observation) -> ActionChunk:
        worlds = list(worlds)
        clean = to_numpy(self._world.expert_action())[worlds]  # [n, A]
        executed = clean + (self._std * self._noise[worlds] * self._takes_noise).astype(np.float32)
        for n in worlds:
            if (generator := self._generators.get(n)) is not None:
                white = generator.standard_normal(self._noise.shape[1])
                self._noise[n] = next_noise(self._noise[n], white, self._correlation)
        return ActionChunk(actions=np.clip(executed, -1.0, 1.0)[:, None], labels=clean[:, None])
