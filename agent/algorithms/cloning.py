"""What rft and dagger share: collect episodes, add the useful ones to a dataset, and clone all of it.

    collect    episodes of the acting policy (agent/algorithms/rft.py, agent/algorithms/dagger.py), every frame recorded
    store      each episode once in the run's dataset; rft clones successes and uses failures for auxiliary losses
               only, dagger clones the expert's labels of all
    update     behaviour cloning (sft.py) on demonstrations and the run's dataset, rows sampled uniformly, but at most
               `rows_per_episode` of an episode: one that is stuck until its step limit would count for ten

The dataset is on disk before the first update, so an iteration that is repeated after a crash trains on the same rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Generic, Literal, TypeVar

from agent.algorithms.cloning_config import CloningConfig
from agent.algorithms.method import Context, Specs, mean_metrics
from agent.algorithms.sft import SFTEncoder, sft_loss
from agent.algorithms.shrink_perturb import shrink_and_perturb
from agent.learning.bad_batch import saved_if_not_finite
from agent.learning.learner import Learner
from agent.runs.run_folder import dataset_of
from envs.errors import UserError
from rollout.dataset.batches import TrainingData
from rollout.dataset.write import DatasetWriter
from rollout.types import RunEpisodes, Trajectory
from vla_model.model import VLA

C = TypeVar("C", bound=CloningConfig)


class Cloning(Generic[C]):
    """A method that clones demonstrations and its own episodes; a subclass defines the policy that acts."""

    failed: Literal["cloned", "auxiliary"]
    """How a failed episode is used: its actions as labels, or its frames for auxiliary losses only."""
    keeps_failures: bool
    """Whether failed episodes go into the dataset."""
    n_action_steps: int | None
    """Actions executed of each chunk."""
    drives: tuple[str, ...] = ()
    """Recorded drives to train on too."""

    def __init__(self, config: C, context: Context) -> None:
        """
        Raises:
            UserError: the demonstrations or drives do not exist, or were not recorded in the policy's world.
        """
        self._demonstrations = [Path(root) for root in config.demonstrations or (dataset_of(context.init),)]
        if missing := [root for root in self._demonstrations if not root.exists()]:
            raise UserError(
                f"there are no demonstrations in {missing[0]}; start from a run that has a dataset, or name datasets "
                "with --algorithm.demonstrations"
            )
        self._config = config
        self._context = context
        self.data = [self._data(self._demonstrations)]

    def collect(self, run: RunEpisodes, specs: Specs, iteration: int) -> list[Trajectory]:
        del iteration
        return list(run(specs(0, 1), n_action_steps=self.n_action_steps, all_frames=True))

    def learn(self, learner: Learner[VLA], trajectories: list[Trajectory], iteration: int) -> dict[str, float]:
        """Returns the means over the updates."""
        num_updates, reset = self._config.updates, self._config.shrink_perturb
        if reset.keep < 1.0 and iteration + 1 == reset.iteration:
            shrink_and_perturb(learner, reset.keep, seed=self._context.seed)
            num_updates = max(num_updates, reset.updates)
        num_episodes = self._store(trajectories)
        roots = [*self._demonstrations, *([self._context.run.dataset] if num_episodes else [])]
        data = self._data(roots)
        encode = SFTEncoder(self._context.processor, data.instructions, learner.model.config, seed=self._context.seed)
        loss = partial(sft_loss, config=self._config.sft)
        metrics: list[dict[str, float]] = []
        first, model = learner.num_updates_done, learner.model.config
        with data.batches(
            learner.config.batch_size,
            model.chunk_size,
            seed=self._context.seed,
            start_step=first,
            history=model.history,
            foreseen=model.foreseen,
        ) as batches:
            for _ in range(num_updates):
                batch = encode(next(batches), learner.num_updates_done).to(learner.device)
                with saved_if_not_finite(batch, self._context.run.root):
                    metrics.append(learner.update(batch, loss))
        sizes = {"dataset/rows": float(data.num_rows), "dataset/own_episodes": float(num_episodes)}
        return mean_metrics(metrics) | sizes

    def _data(self, roots: Sequence[Path]) -> TrainingData:
        return TrainingData(
            roots,
            drives=self.drives,
            failed=self.failed,
            rows_per_episode=self._config.rows_per_episode,
            world_spec=self._context.processor.world_spec,
            conversion=self._context.processor.conversion,
            cache=self._context.cache,
        )

    def _store(self, trajectories: list[Trajectory]) -> int:
        """Add the episodes that are kept and not stored yet; returns the number of episodes in the run's dataset."""
        context = self._context
        with DatasetWriter(context.run.dataset, context.processor.world_spec, robot_type=context.suite) as writer:
            stored = writer.finished_ids()
            for trajectory in trajectories:
                if (trajectory.success or self.keeps_failures) and trajectory.spec.id not in stored:
                    writer.append(trajectory)
            return len(writer.finished_ids())
