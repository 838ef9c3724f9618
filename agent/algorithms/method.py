"""The interface of an algorithm to the loop that fine-tunes a policy (agent/training/improve.py).

An algorithm's config, an AlgorithmConfig, declares what the loop must know before it starts, and makes a Method, which
collects episodes and learns from them. A recipe (agent/recipes.py) names it on the command line. Its fields are options
of the command, which are parsed before torch is loaded; so the config stands in a file of its own beside the
algorithm's, ppo_config.py beside ppo.py, and imports it when it makes the Method.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np

from agent.learning.config import LearnerConfig
from agent.runs.run_folder import RunFolder
from envs.types import EpisodeSpec
from envs.world import World
from rollout.types import RunEpisodes, Trajectory
from vla_model.types import Policy
from vla_model.weights.config import FineTuning

if TYPE_CHECKING:
    from agent.learning.learner import Learner
    from rollout.dataset.batches import TrainingData
    from vla_model.config import VLAConfig
    from vla_model.inputs.processor import Processor
    from vla_model.model import VLA

Specs = Callable[[int, int], list[EpisodeSpec]]
"""(round, repeats) -> initial states of one round of an iteration, each to be run `repeats` times."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """What an algorithm gets from its run."""

    processor: Processor
    """Of the model."""
    suite: str
    """Of the world."""
    run: RunFolder
    init: str = ""
    """The initial policy."""
    seed: int = 0
    """Of sampled actions, batches and augmentation."""
    n_action_steps: int | None = None
    """Actions executed of each chunk; None for the whole chunk."""
    cache: str = ""
    """As TrainingData takes it."""


class Method(Protocol):
    """What an algorithm does in an iteration."""

    data: list[TrainingData]
    """Recorded datasets that it trains on beside its own episodes."""

    def actor(self, model: VLA) -> Callable[[World], Policy]:
        """Returns a function that makes the policy that collects, called in the process that runs the world."""
        ...

    def collect(self, run: RunEpisodes, specs: Specs, iteration: int) -> list[Trajectory]:
        """The episodes of an iteration."""
        ...

    def learn(self, learner: Learner[VLA], trajectories: list[Trajectory], iteration: int) -> dict[str, float]:
        """Update the learner on them; returns metrics."""
        ...


@dataclass(frozen=True, kw_only=True)
class AlgorithmConfig(ABC):
    """Settings of an algorithm; subclasses override what differs from these defaults."""

    needs_values: ClassVar[bool] = False
    """Whether the model must have a value head."""
    acts_by_average: ClassVar[bool] = True
    """Whether the policy that acts may be the moving average of the learner's weights."""
    repeats_loss: ClassVar[bool] = True
    """Whether all updates have the same loss, so that a CUDA graph can replay it."""
    asks_expert: ClassVar[bool] = False
    """Whether the world's scripted expert is queried during collection, in the process of the policy that acts."""

    @property
    def rounds(self) -> int:
        """Maximum number of rounds of initial states in an iteration."""
        return 1

    @property
    def repeats(self) -> int:
        """Episodes of each initial state."""
        return 1

    @abstractmethod
    def method(self, context: Context) -> Method:
        """
        Raises:
            UserError: the data that the algorithm needs do not exist, or are of another world.
        """

    def scheduled_updates(self, iterations: int, iteration: int) -> int | None:
        """Length in updates of the learning-rate schedule that an iteration belongs to; None where it is not known
        beforehand, and the learning rate follows the iterations.
        """
        del iterations, iteration
        return None

    def check_learner(self, learner: LearnerConfig, iterations: int) -> None:
        """
        Raises:
            UserError: the learner's settings or the number of iterations contradict the algorithm.
        """

    def check_model(self, model: VLAConfig, fine_tuning: FineTuning, iterations: int) -> None:
        """
        Raises:
            UserError: the algorithm cannot train that model.
        """

    def prepare(self, model: VLA) -> None:
        """Adapt a loaded model to the algorithm, in place."""


def mean_metrics(updates: Sequence[dict[str, float]]) -> dict[str, float]:
    """The metrics of an iteration's updates, averaged over these."""
    return {name: float(np.mean([update[name] for update in updates])) for name in updates[0]}
