"""What rft and dagger share: gather episodes, add those worth it to a dataset, and clone all of it.

    collect    episodes of the acting policy (agent/algorithms/rft.py, agent/algorithms/dagger.py), every frame recorded
    credit     rft imitates successes and looks at the rest, dagger imitates everything; episodes go into the run's
               dataset, once each
    update     behaviour cloning (sft.py) on demonstrations and the run's dataset, every row as likely, but no
               more than `rows_per_episode` of an episode: one that hangs until its step limit would count for ten

The dataset is on the disk before the first update, so an iteration that is done again after a crash learns from the
same rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Generic, Literal, TypeVar

import numpy as np
from annotated_types import Interval

from agent.algorithms.method import AlgorithmConfig, Context, Specs
from agent.algorithms.renewal import RenewalConfig, check_renewal, renew, scheduled_updates
from agent.algorithms.sft import SFTConfig, SFTEncoder, sft_loss
from agent.learning.config import LearnerConfig
from agent.learning.learner import Learner
from agent.learning.offending import kept_if_not_finite
from agent.runs.run_folder import dataset_of
from envs.errors import UserError
from envs.world import World
from rollout.dataset.batches import TrainingData
from rollout.dataset.write import DatasetWriter
from rollout.types import RunEpisodes, Trajectory
from vla_model.config import VLAConfig
from vla_model.model import VLA
from vla_model.types import Policy
from vla_model.weights.finetune import FineTuning


@dataclass(frozen=True, kw_only=True)
class CloningConfig(AlgorithmConfig):
    """Settings of an algorithm that clones what was practised."""

    demonstrations: str = ""
    """Folder of the dataset that stays in the mix; if not given, that of the run that init names."""
    updates: Annotated[int, Interval(ge=1, le=1_000_000)] = 300
    """In an iteration."""
    rows_per_episode: Annotated[int, Interval(ge=1, le=1_000_000)] = 24
    """Rows to learn from of each episode, evenly spaced where it is longer."""
    renewal: RenewalConfig = field(default_factory=RenewalConfig)
    sft: SFTConfig = field(default_factory=SFTConfig)

    def scheduled_updates(self, iterations: int, iteration: int) -> int:
        """See AlgorithmConfig: those before the renewal, or those from it on."""
        return scheduled_updates(self.renewal, self.updates, iterations, iteration)

    def check_learner(self, learner: LearnerConfig, iterations: int) -> None:
        """
        Raises:
            UserError: the run makes another number of updates, or the learning rate would still rise at a schedule's
                end.
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
            UserError: see check_renewal.
        """
        check_renewal(self.renewal, iterations, fine_tuning, model)


C = TypeVar("C", bound=CloningConfig)


class Cloning(ABC, Generic[C]):
    """A method that clones demonstrations and what was practised; who inherits it says who acts."""

    failed: Literal["imitated", "seen"]
    """What a failed episode's actions are: labels to imitate, or nothing, while its frames are learned from."""
    keeps_failures: bool
    """Whether failed episodes go into the dataset."""
    n_action_steps: int | None
    """Actions executed of each chunk."""
    drives: tuple[str, ...] = ()
    """Recorded drives to learn from too."""

    def __init__(self, config: C, context: Context) -> None:
        """
        Raises:
            UserError: there are no demonstrations, or no drives where the config names some, or they were not recorded
                in the policy's world.
        """
        self._demonstrations = Path(config.demonstrations or dataset_of(context.init))
        if not self._demonstrations.exists():
            raise UserError(
                f"there are no demonstrations in {self._demonstrations}; begin with a run that has a dataset, or name "
                "one with --algorithm.demonstrations"
            )
        self._config = config
        self._context = context
        self.data = [self._data([self._demonstrations])]

    @abstractmethod
    def actor(self, model: VLA) -> Callable[[World], Policy]:
        """See Method."""

    def collect(self, run: RunEpisodes, specs: Specs, iteration: int) -> list[Trajectory]:
        """See Method."""
        del iteration
        return list(run(specs(0, 1), n_action_steps=self.n_action_steps, all_frames=True))

    def learn(self, learner: Learner[VLA], trajectories: list[Trajectory], iteration: int) -> dict[str, float]:
        """Returns the means over the updates."""
        renewal = self._config.renewal
        if renewed := renewal.keep < 1.0 and iteration + 1 == renewal.iteration:
            renew(learner, renewal.keep, seed=self._context.seed)
        num_episodes = self._store(trajectories)
        roots = [self._demonstrations, *([self._context.run.dataset] if num_episodes else [])]
        data = self._data(roots)
        encode = SFTEncoder(self._context.processor, data.instructions, learner.model.config, seed=self._context.seed)
        loss = partial(sft_loss, config=self._config.sft)
        told: list[dict[str, float]] = []
        first, model = learner.num_updates_done, learner.model.config
        with data.batches(
            learner.config.batch_size,
            model.chunk_size,
            seed=self._context.seed,
            start_step=first,
            history=model.history,
            foreseen=model.foreseen,
        ) as batches:
            for _ in range(max(self._config.updates, renewal.updates if renewed else 0)):
                batch = encode(next(batches), learner.num_updates_done).to(learner.device)
                with kept_if_not_finite(batch, self._context.run.root):
                    told.append(learner.update(batch, loss))
        means = {name: float(np.mean([metrics[name] for metrics in told])) for name in told[0]}
        return means | {"dataset/rows": float(data.num_rows), "dataset/own_episodes": float(num_episodes)}

    def _data(self, roots: Sequence[Path]) -> TrainingData:
        return TrainingData(
            roots,
            drives=self.drives,
            failed=self.failed,
            rows_per_episode=self._config.rows_per_episode,
            world_spec=self._context.processor.world_spec,
            cache=self._context.cache,
        )

    def _store(self, trajectories: list[Trajectory]) -> int:
        """Add what is worth it and not there yet; returns how many episodes the run's dataset has then."""
        context = self._context
        with DatasetWriter(context.run.dataset, context.processor.world_spec, robot_type=context.suite) as writer:
            known = writer.finished_ids()
            for trajectory in trajectories:
                if (trajectory.success or self.keeps_failures) and trajectory.spec.id not in known:
                    writer.append(trajectory)
            return len(writer.finished_ids())
