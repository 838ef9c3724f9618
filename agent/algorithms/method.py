"""What an algorithm is to the loop that improves a policy (agent/training/improve.py)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from agent.learning.learner import Learner
from envs.types import EpisodeSpec
from envs.world import World
from rollout.dataset.batches import TrainingData
from rollout.types import RunEpisodes, Trajectory
from vla_model.model import VLA
from vla_model.types import Policy

Specs = Callable[[int, int], list[EpisodeSpec]]
"""(round, repeats) -> first states of one round of an iteration, of which each is to be run `repeats` times."""


class Method(Protocol):
    """What an algorithm does in an iteration."""

    data: list[TrainingData]
    """Recorded datasets that it learns from beside what is practised."""

    def actor(self, model: VLA) -> Callable[[World], Policy]:
        """Makes the policy that practises with the model, in whatever process runs the world."""
        ...

    def collect(self, run: RunEpisodes, specs: Specs, iteration: int) -> list[Trajectory]:
        """The episodes of an iteration."""
        ...

    def learn(self, learner: Learner[VLA], trajectories: list[Trajectory], iteration: int) -> dict[str, float]:
        """Update the learner with them; returns what is to be logged."""
        ...
