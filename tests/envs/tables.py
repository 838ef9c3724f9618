"""What several tests of the tabletop share: specs, busy actions, and runs written down."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from envs.tabletop.tasks import TASKS
from envs.tabletop.world import TabletopConfig, TabletopWorld
from envs.types import EpisodeSpec, Observation

BLIND = TabletopConfig(cameras=())
"""For what does not depend on frames: no renderer."""


def spec(task: str, seed: int = 0, variation: str = "train") -> EpisodeSpec:
    return EpisodeSpec(suite="tabletop", task=task, seed=seed, variation=variation)


def every_task(seed: int = 0, variation: str = "train") -> list[EpisodeSpec]:
    return [spec(task, seed, variation) for task in TASKS]


def begin(world: TabletopWorld, specs: Sequence[EpisodeSpec]) -> Observation:
    return world.reset_to(specs, range(len(specs)))[0]


def busy_actions(num_worlds: int, num_steps: int, seed: int = 0) -> NDArray[np.float32]:
    """Random actions that go down to the things on the table, [N, k, A]."""
    actions = np.random.default_rng(seed).uniform(-1, 1, (num_worlds, num_steps, 7)).astype(np.float32)
    actions[:, :, 2] = actions[:, :, 2] * 0.5 - 0.4
    return actions


def fingerprint(observation: Observation, row: int) -> str:
    """One world's frames, state and instruction, to the last bit."""
    parts = [observation["frames"][name][row].tobytes() for name in sorted(observation["frames"])]
    parts += [observation["state"][row].tobytes(), observation["instruction"][row].encode()]
    return hashlib.sha256(b"|".join(parts)).hexdigest()
