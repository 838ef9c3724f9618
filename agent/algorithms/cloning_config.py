"""Settings of rft and dagger, which clone their own episodes; importing this loads no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, ClassVar

import tyro
from annotated_types import Interval

from agent.algorithms.method import AlgorithmConfig, Context
from agent.algorithms.sft_config import SFTConfig
from agent.algorithms.shrink_perturb import ShrinkPerturbConfig, check_shrink_perturb, scheduled_updates
from agent.learning.config import LearnerConfig
from envs.errors import UserError
from vla_model.files.deployment import check_n_action_steps
from vla_model.weights.config import FineTuning

if TYPE_CHECKING:
    from agent.algorithms.dagger import Dagger
    from agent.algorithms.rft import RFT
    from vla_model.config import VLAConfig


@dataclass(frozen=True, kw_only=True)
class CloningConfig(AlgorithmConfig):
    """Settings of an algorithm that clones its own episodes."""

    demonstrations: Annotated[tuple[str, ...], tyro.conf.arg(metavar="DIR ...")] = ()
    """Datasets of demonstrations to train on too; if not given, that of the run that init names."""
    updates: Annotated[int, Interval(ge=1, le=1_000_000)] = 300
    """In an iteration."""
    rows_per_episode: Annotated[int, Interval(ge=1, le=1_000_000)] = 24
    """At most so many rows of each episode are trained on, evenly spaced."""
    shrink_perturb: ShrinkPerturbConfig = field(default_factory=ShrinkPerturbConfig)
    sft: SFTConfig = field(default_factory=SFTConfig)

    def scheduled_updates(self, iterations: int, iteration: int) -> int:
        """See AlgorithmConfig and shrink_perturb.py."""
        return scheduled_updates(self.shrink_perturb, self.updates, iterations, iteration)

    def check_learner(self, learner: LearnerConfig, iterations: int) -> None:
        """
        Raises:
            UserError: learner.num_updates disagrees with the iterations, or warm-up is longer than a schedule.
        """
        schedules = [self.scheduled_updates(iterations, iteration) for iteration in range(iterations)]
        if learner.num_updates not in (None, schedules[-1]):
            raise UserError(
                f"learner.num-updates is {learner.num_updates}, but {iterations} iterations come to {schedules[-1]}; "
                "leave it out"
            )
        learner.check_warmup(min(schedules))

    def check_model(self, model: VLAConfig, fine_tuning: FineTuning, iterations: int) -> None:
        """
        Raises:
            UserError: see check_shrink_perturb.
        """
        check_shrink_perturb(self.shrink_perturb, iterations, fine_tuning, model)


@dataclass(frozen=True, kw_only=True)
class RFTConfig(CloningConfig):
    """Settings of rft."""

    auxiliary_failures: bool = True
    """Whether to use failed episodes for auxiliary losses."""

    def method(self, context: Context) -> RFT:
        from agent.algorithms.rft import RFT

        return RFT(self, context)


@dataclass(frozen=True, kw_only=True)
class DaggerConfig(CloningConfig):
    """Settings of dagger."""

    asks_expert: ClassVar[bool] = True

    beta: Annotated[float, Interval(ge=0, le=1)] = 0.5
    """Share of the expert's actions in the first iteration."""
    beta_decay: Annotated[float, Interval(ge=0, le=1)] = 0.9
    """Of that share, per iteration."""
    drives: Annotated[tuple[str, ...], tyro.conf.arg(metavar="DIR ...")] = ()
    """Recorded drives to train on too: a person's corrections where they took over, and whole drives that succeeded
    without (docs/console.md)."""
    n_action_steps: Annotated[int, Interval(ge=1, le=1_000)] = 1
    """Actions executed of each decision during collection, by the learner or by the expert in its place."""

    def method(self, context: Context) -> Dagger:
        from agent.algorithms.dagger import Dagger

        return Dagger(self, context)

    def check_model(self, model: VLAConfig, fine_tuning: FineTuning, iterations: int) -> None:
        """
        Raises:
            UserError: n_action_steps exceeds the chunk size, or see CloningConfig.
        """
        check_n_action_steps(self.n_action_steps, model.chunk_size)
        super().check_model(model, fine_tuning, iterations)
