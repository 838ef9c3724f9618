"""What an algorithm is to the loop that improves a policy (agent/training/improve.py).

An algorithm is one file: its config, an AlgorithmConfig, says what the loop must know before it begins, and makes a
Method, which collects and learns. A recipe (agent/recipes.py) gives it a name on the command line.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

from agent.learning.config import LearnerConfig
from agent.learning.learner import Learner
from agent.runs.run_folder import RunFolder
from envs.types import EpisodeSpec
from envs.world import World
from rollout.dataset.batches import TrainingData
from rollout.types import RunEpisodes, Trajectory
from vla_model.config import VLAConfig
from vla_model.inputs.processor import Processor
from vla_model.model import VLA
from vla_model.types import Policy
from vla_model.weights.finetune import FineTuning

Specs = Callable[[int, int], list[EpisodeSpec]]
"""(round, repeats) -> first states of one round of an iteration, of which each is to be run `repeats` times."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a run gives its algorithm."""

    processor: Processor
    """Of the model."""
    suite: str
    """Of the world."""
    run: RunFolder
    init: str = ""
    """The policy that the run began with."""
    seed: int = 0
    """Of sampled actions, batches and augmentation."""
    n_action_steps: int | None = None
    """Actions executed of each chunk; None for the whole chunk."""
    cache: str = ""
    """As TrainingData takes it."""


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


@dataclass(frozen=True, kw_only=True)
class AlgorithmConfig:
    """Settings of an algorithm; what it needs otherwise than most, its own config overrides."""

    needs_values: ClassVar[bool] = False
    """Whether the model must have a value head."""
    acts_by_average: ClassVar[bool] = True
    """Whether the policy that acts may be a moving average of the weights that learn."""
    repeats_loss: ClassVar[bool] = True
    """Whether all updates have one and the same loss, so that a GPU may replay it."""
    asks_expert: ClassVar[bool] = False
    """Whether the world's scripted expert takes part in practice, in the process of the policy that acts."""

    @property
    def rounds(self) -> int:
        """The most rounds of first states that an iteration asks for."""
        return 1

    @property
    def repeats(self) -> int:
        """Episodes of each first state."""
        return 1

    def method(self, context: Context) -> Method:
        """
        Raises:
            UserError: what the algorithm learns from is not there, or is of another world.
        """
        raise NotImplementedError

    def scheduled_updates(self, iterations: int, iteration: int) -> int | None:
        """How many updates the learning rate's schedule has that an iteration is part of; None where they cannot be
        counted beforehand, and the rate falls by iterations.
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
            UserError: that model cannot learn so.
        """

    def prepare(self, model: VLA) -> None:
        """Change, in place, how a model that was loaded acts and learns."""
