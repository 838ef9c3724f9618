"""DAgger: the expert says what to do where the learner gets to.

Ross et al. 2011, "A Reduction of Imitation Learning and Structured Prediction to No-Regret Online Learning", algorithm
3.1:

    p_i     = b_i expert + (1 - b_i) learner_i     who acts, drawn anew at every control step;   b_i = beta decay^i
    D_i     = D_{i-1} + {(s, expert(s)) for every state s that p_i visited}        learner_{i+1} = clone D_i

The policy that begins was cloned from demonstrations, which are D_{-1}: so beta may begin below 1. It must not vanish
at once: a learner that cannot grasp yet never comes to carry, and an episode in which it is stuck is one state many
times over; the expert's share gets it on. Episodes in which the learner failed are kept: their states are those it
needs to be taught about.

    chunks     within these rollouts the learner decides at every control step and executes the first action of its
               chunk, because the expert must see every state; row t's label is thus exact. The later labels of row t's
               chunk are the expert's in the states that followed: those of its own path only once the learner follows.
    renewal    a learner that goes on from a policy of few demonstrations stays behind one that learns D_i from nothing
               (docs/results/dagger.md), so its weights may be renewed (agent/renewal.py), best in the last iteration
    learner    acts by its mode, as it will when it is evaluated

    drives     a person's labels, where one took a drive over (agent/console/), stand beside the scripted expert's

Left out: asking the expert only where the learner is unsure (SafeDAgger and kin), as a scripted expert costs nothing.

Shape letters: N worlds, K chunk length, A action dims.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
import tyro
from numpy.typing import NDArray
from torch import Tensor

from agent.renewal import RenewalConfig
from agent.sft import SFTConfig
from envs.arrays import to_numpy
from envs.types import Observation
from envs.world import World
from vla_model.policy import VLAPolicy
from vla_model.types import ActionChunk

_MIXTURE_STREAM = 0x6D6978
"""Keeps this generator apart from whatever else is drawn from an episode's seed."""


@dataclass(frozen=True, kw_only=True)
class DaggerConfig:
    """Settings of dagger."""

    beta: float = 0.5
    """Share of the expert's actions in the first iteration."""
    beta_decay: float = 0.9
    """Of that share, per iteration."""
    demonstrations: str = ""
    """Folder of the dataset that the growing one is added to; if not given, that of the run that init names."""
    drives: Annotated[tuple[str, ...], tyro.conf.arg(metavar="DIR ...")] = ()
    """Recorded drives to learn from too: what a person did in those that one took over, and whole those that succeeded
    without (docs/console.md)."""
    updates: int = 300
    """In an iteration."""
    rows_per_episode: int = 24
    """Rows to learn from of each episode, evenly spaced where it is longer."""
    renewal: RenewalConfig = field(default_factory=RenewalConfig)
    sft: SFTConfig = field(default_factory=SFTConfig)


class Mixture:
    """Policy of chunk length 1: the learner's action or the expert's, and the expert's as the label.

    The learner's version decides the share: the iteration, or with overlap, from the second one on, the one before.
    """

    def __init__(self, learner: VLAPolicy, world: World, config: DaggerConfig) -> None:
        """It must act in that same world."""
        self.version = learner.version
        self._learner = learner
        self._world = world
        self._config = config
        self._generators = [np.random.default_rng() for _ in range(world.num_envs)]

    def load_weights(self, version: int, state_dict: Mapping[str, Tensor]) -> None:
        self._learner.load_weights(version, state_dict)
        self.version = version

    def begin(self, worlds: NDArray[np.int64], instructions: tuple[str, ...], seeds: tuple[int, ...]) -> None:
        self._learner.begin(worlds, instructions, seeds)
        for n, seed in zip(worlds.tolist(), seeds, strict=True):
            self._generators[n] = np.random.default_rng([_MIXTURE_STREAM, seed])

    def act(self, observation: Observation) -> ActionChunk:
        chunk = self._learner.act(observation)
        expert = to_numpy(self._world.expert_action())[:, None]  # [N, 1, A]
        share = self._config.beta * self._config.beta_decay**self.version
        by_expert = np.array([generator.random() < share for generator in self._generators])
        actions = np.where(by_expert[:, None, None], expert, to_numpy(chunk.actions[:, :1]))
        return ActionChunk(actions=actions, labels=expert, expert_usage=chunk.expert_usage)
