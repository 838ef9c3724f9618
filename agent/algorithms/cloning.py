"""What rft and dagger do in an iteration: gather episodes, add those worth it to a dataset, and clone all of it.

    collect    episodes of the acting policy (agent/algorithms/rft.py, agent/algorithms/dagger.py), every frame recorded
    credit     rft imitates successes and looks at the rest, dagger imitates everything; episodes go into the run's
               dataset, once each
    update     behaviour cloning (sft.py) on demonstrations and the run's dataset, every row as likely, but no
               more than `rows_per_episode` of an episode: one that hangs until its step limit would count for ten

The dataset is on the disk before the first update, so an iteration that is done again after a crash learns from the
same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from agent.algorithms.dagger import DaggerConfig, Mixture
from agent.algorithms.method import Specs
from agent.algorithms.renewal import renew
from agent.algorithms.rft import RFTConfig
from agent.algorithms.sft import SFTEncoder, sft_loss
from agent.evaluation.measure import on_best_device
from agent.learning.learner import Learner
from agent.learning.offending import kept_if_not_finite
from agent.runs.run_folder import RunFolder, dataset_of
from envs.errors import UserError
from envs.world import World
from rollout.dataset.batches import TrainingData
from rollout.dataset.write import DatasetWriter
from rollout.types import RunEpisodes, Trajectory
from vla_model.inputs.processor import Processor
from vla_model.model import VLA
from vla_model.policy import VLAPolicy
from vla_model.types import Policy


class Cloning:
    """rft or dagger as the loop knows them (agent/training/improve.py)."""

    def __init__(
        self,
        config: RFTConfig | DaggerConfig,
        processor: Processor,
        *,
        suite: str,
        seed: int,
        execute_steps: int | None,
        run: RunFolder,
        init: str,
        cache: str = "",
    ) -> None:
        """
        Args:
            config: of the algorithm.
            processor: of the model.
            suite: of the world.
            seed: of drawn actions, batches and augmentation.
            execute_steps: actions that rft executes of each chunk.
            run: whose dataset grows.
            init: the policy that the run began with.
            cache: as TrainingData takes it.

        Raises:
            UserError: there are no demonstrations, or no drives where the config names some, or they were not recorded
                in the policy's world.
        """
        self._demonstrations = Path(config.demonstrations or dataset_of(init))
        if not self._demonstrations.exists():
            raise UserError(
                f"there are no demonstrations in {self._demonstrations}; begin with a run that has a dataset, or name "
                "one with --algorithm.demonstrations"
            )
        self._drives = config.drives if isinstance(config, DaggerConfig) else ()
        self._cache = cache
        self._config = config
        self._processor = processor
        self.data = [self._data([self._demonstrations])]
        """Recorded datasets that it begins with."""
        self._suite = suite
        self._seed = seed
        self._execute_steps = 1 if isinstance(config, DaggerConfig) else execute_steps
        self._run = run

    def actor(self, model: VLA) -> Callable[[World], Policy]:
        """See agent/training/improve.py."""
        config = self._config
        # Of no version yet: whatever weights are published first, they are taken.
        policy = VLAPolicy(model, self._processor, version=-1, sample=isinstance(config, RFTConfig), seed=self._seed)
        if isinstance(config, DaggerConfig):
            return lambda world: Mixture(policy.to("auto"), world, config)
        return partial(on_best_device, policy)

    def collect(self, run: RunEpisodes, specs: Specs, iteration: int) -> list[Trajectory]:
        """See agent/training/improve.py."""
        del iteration
        return list(run(specs(0, 1), execute_steps=self._execute_steps, all_frames=True))

    def learn(self, learner: Learner[VLA], trajectories: list[Trajectory], iteration: int) -> dict[str, float]:
        """See agent/training/improve.py; returns the means over the updates."""
        renewal = self._config.renewal
        if renewed := renewal.keep < 1.0 and iteration + 1 == renewal.iteration:
            renew(learner, renewal.keep, seed=self._seed)
        num_episodes = self._store(trajectories)
        roots = [self._demonstrations, *([self._run.dataset] if num_episodes else [])]
        data = self._data(roots)
        encode = SFTEncoder(self._processor, data.instructions, learner.model.config, seed=self._seed)
        loss = partial(sft_loss, config=self._config.sft)
        told: list[dict[str, float]] = []
        first, model = learner.num_updates_done, learner.model.config
        with data.batches(
            learner.config.batch_size,
            model.chunk_length,
            seed=self._seed,
            start_step=first,
            history=model.history,
            foreseen=model.foreseen,
        ) as batches:
            for _ in range(max(self._config.updates, renewal.updates if renewed else 0)):
                batch = encode(next(batches), learner.num_updates_done).to(learner.device)
                with kept_if_not_finite(batch, self._run.root):
                    told.append(learner.update(batch, loss))
        means = {name: float(np.mean([metrics[name] for metrics in told])) for name in told[0]}
        return means | {"dataset/rows": float(data.num_rows), "dataset/own_episodes": float(num_episodes)}

    def _data(self, roots: Sequence[Path]) -> TrainingData:
        return TrainingData(
            roots,
            drives=self._drives,
            failed="imitated" if isinstance(self._config, DaggerConfig) else "seen",
            rows_per_episode=self._config.rows_per_episode,
            world_spec=self._processor.world_spec,
            cache=self._cache,
        )

    def _store(self, trajectories: list[Trajectory]) -> int:
        """Add what is worth it and not there yet; returns how many episodes the run's dataset has then."""
        config, spec = self._config, self._processor.world_spec
        failures_too = isinstance(config, DaggerConfig) or config.see_failures
        with DatasetWriter(self._run.dataset, spec, robot_type=self._suite) as writer:
            known = writer.finished_ids()
            for trajectory in trajectories:
                if (trajectory.success or failures_too) and trajectory.spec.id not in known:
                    writer.append(trajectory)
            return len(writer.finished_ids())
