"""A new algorithm is one file: this one is defined here, and the loop trains with it as with any other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from sides_policy import WillingSidesWorld, save_sides_policy, sides_config
from torch import Tensor

from agent.algorithms.method import AlgorithmConfig, Context, Specs
from agent.algorithms.rollout_batch import Advantages, Decisions, RolloutBatch, decisions, rewards
from agent.learning.config import LearnerConfig
from agent.learning.learner import Learner
from agent.report.curves import read_curves
from agent.runs.run_folder import PRETRAINED, policy_folder, start_run
from agent.training.improve import improve
from envs.world import World
from rollout.dataset.batches import TrainingData
from rollout.types import RunEpisodes, Trajectory
from vla_model.model import VLA
from vla_model.policy import VLAPolicy
from vla_model.types import Policy

LEARNER = LearnerConfig(batch_size=64, learning_rate=3e-3, warmup_updates=0, final_lr_share=1.0, ema_decay=0.9)


@dataclass(frozen=True, kw_only=True)
class ReinforceConfig(AlgorithmConfig):
    """Settings of REINFORCE with the mean return as its baseline (Williams 1992)."""

    passes: int = 1
    """Over the episodes of an iteration."""

    def method(self, context: Context) -> Reinforce:
        return Reinforce(self, context)


class Reinforce:
    """L = -mean((R - mean R) log p(a)) over all actions a."""

    def __init__(self, config: ReinforceConfig, context: Context) -> None:
        self.data: list[TrainingData] = []
        self._config = config
        self._context = context

    def actor(self, model: VLA) -> Callable[[World], Policy]:
        policy = VLAPolicy(model, self._context.processor, version=-1, sample=True, dtype="float32")
        return lambda _: policy

    def collect(self, run: RunEpisodes, specs: Specs, iteration: int) -> list[Trajectory]:
        return list(run(specs(0, 1), n_action_steps=self._context.n_action_steps))

    def learn(self, learner: Learner[VLA], trajectories: list[Trajectory], iteration: int) -> dict[str, float]:
        returns = torch.tensor([float(rewards(t, "success").sum()) for t in trajectories])
        advantages = (returns - returns.mean()).tolist()
        found = [
            Advantages(advantage=a * ones, target=0 * ones, weight=ones)
            for t, a in zip(trajectories, advantages, strict=True)
            for ones in [rewards(t, "success") * 0 + 1]
        ]
        rollout_batch = RolloutBatch(trajectories=trajectories, advantages=found, metrics={})
        batch = decisions(rollout_batch, self._context.processor)
        metrics: dict[str, float] = {}
        for _ in range(self._config.passes):
            metrics = learner.update(batch, reinforce_loss)
        return metrics


def reinforce_loss(model: VLA, batch: Decisions) -> tuple[Tensor, dict[str, Tensor]]:
    """Over the actions that were executed."""
    log_prob = model(batch.inputs).actions.log_prob(batch.sampled)
    loss = -(batch.weight * batch.advantage * log_prob).sum() / batch.weight.sum()
    return loss, {"loss/reinforce": loss.detach()}


def test_a_new_algorithm_in_one_file_trains_an_untrained_policy(tmp_path: Path) -> None:
    first = save_sides_policy(tmp_path / "first")
    config = sides_config(ReinforceConfig(passes=2), first, LEARNER, iterations=3, evaluate_every=1)
    run = start_run(tmp_path / "run", config)
    evaluation, controls = improve(config, run, partial(WillingSidesWorld))
    assert len(evaluation.results) == 40
    assert not controls
    assert policy_folder(run.root) == run.best / PRETRAINED
    curves = {curve.tag: curve for curve in read_curves(run.tensorboard)}
    assert curves["loss/reinforce"].steps == (1, 2, 3)
    assert run.record["config"]["algorithm"] == {"passes": 2}
