"""What ppo and grpo do in an iteration: draw actions, credit them, and pass over them a few times.

    collect    episodes of the policy that draws its actions, in float32 like the pass that learns (decisions.py)
    credit     advantages of all actions of the rollout (agent/algorithms/ppo.py, agent/algorithms/grpo.py)
    update     `epochs` passes in minibatches of equal size, until the policy has moved by `max_kl`

The order of the minibatches is drawn from (seed, iteration, epoch).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from agent.algorithms.decisions import Credited, Decisions, decisions
from agent.algorithms.grpo import GRPOConfig, collect_groups, grpo_credit, grpo_loss
from agent.algorithms.method import Specs
from agent.algorithms.ppo import PPOConfig, ppo_credit, ppo_loss
from agent.algorithms.surrogate import SurrogateConfig, predict
from agent.evaluation.measure import on_best_device
from agent.learning.gradients import Loss
from agent.learning.learner import Learner
from agent.learning.offending import kept_if_not_finite
from agent.runs.run_folder import PRETRAINED, RunFolder
from envs.world import World
from rollout.dataset.batches import TrainingData
from rollout.types import RunEpisodes, Trajectory
from vla_model.inputs.processor import Processor
from vla_model.model import VLA
from vla_model.policy import VLAPolicy
from vla_model.types import Policy
from vla_model.weights.checkpoint import load_policy


class _Algorithm(Protocol):
    """What ppo and grpo do each in its own way."""

    surrogate: SurrogateConfig

    def collect(self, run: RunEpisodes, specs: Specs) -> list[Trajectory]: ...

    def credit(self, trajectories: list[Trajectory]) -> Credited: ...

    def loss(self, iteration: int) -> Loss[VLA]: ...


class _PPO:
    def __init__(self, config: PPOConfig) -> None:
        self._config = config
        self.surrogate = config.surrogate

    def collect(self, run: RunEpisodes, specs: Specs) -> list[Trajectory]:
        return list(run(specs(0, 1)))

    def credit(self, trajectories: list[Trajectory]) -> Credited:
        return ppo_credit(trajectories, self._config)

    def loss(self, iteration: int) -> Loss[VLA]:
        return partial(ppo_loss, config=self._config, only_value=iteration < self._config.warmup_iterations)


class _GRPO:
    def __init__(self, config: GRPOConfig) -> None:
        self._config = config
        self.surrogate = config.surrogate

    def collect(self, run: RunEpisodes, specs: Specs) -> list[Trajectory]:
        return collect_groups(run, lambda round_: specs(round_, self._config.group_size), self._config)

    def credit(self, trajectories: list[Trajectory]) -> Credited:
        return grpo_credit(trajectories, self._config)

    def loss(self, iteration: int) -> Loss[VLA]:
        del iteration
        return partial(grpo_loss, config=self._config)


class PolicyGradient:
    """ppo or grpo as the loop knows them (agent/training/improve.py)."""

    def __init__(
        self,
        config: PPOConfig | GRPOConfig,
        processor: Processor,
        *,
        seed: int,
        execute_steps: int | None,
        run: RunFolder,
    ) -> None:
        """
        Args:
            config: of the algorithm.
            processor: of the model.
            seed: of the drawn actions and of the minibatches.
            execute_steps: actions executed of each chunk.
            run: whose checkpoint 0 is the policy that an anchor holds to.
        """
        self._algorithm: _Algorithm = _PPO(config) if isinstance(config, PPOConfig) else _GRPO(config)
        self._processor = processor
        self._seed = seed
        self._execute_steps = execute_steps
        self._run = run
        self.data: list[TrainingData] = []
        """Recorded datasets that it learns from: none."""

    def actor(self, model: VLA) -> Callable[[World], Policy]:
        policy = VLAPolicy(
            model,
            self._processor,
            version=-1,  # whatever weights are published first, they are taken
            sample=True,
            seed=self._seed,
            dtype="float32",
            noise_correlation=self._algorithm.surrogate.noise_correlation,
            execute_steps=self._execute_steps,
        )
        return partial(on_best_device, policy)

    def collect(self, run: RunEpisodes, specs: Specs, iteration: int) -> list[Trajectory]:
        del iteration
        return self._algorithm.collect(partial(run, execute_steps=self._execute_steps), specs)

    def learn(self, learner: Learner[VLA], trajectories: list[Trajectory], iteration: int) -> dict[str, float]:
        """Returns the means over the updates, "policy/first_log_ratio" of the first one, which is to be nearly 0."""
        credited = self._algorithm.credit(trajectories)
        metrics = credited.metrics
        if credited.trajectories:
            metrics = metrics | self._passes(learner, credited, iteration)
        return metrics

    def _passes(self, learner: Learner[VLA], credited: Credited, iteration: int) -> dict[str, float]:
        batch = decisions(credited, self._processor, learner.model.config.history)
        loss, surrogate = self._algorithm.loss(iteration), self._algorithm.surrogate
        if surrogate.anchor_weight:
            batch = replace(batch, anchor_log_prob=self._first_log_prob(batch, learner.config.batch_size))
        told: list[dict[str, float]] = []
        epochs = 0
        while epochs < surrogate.epochs:
            epochs, begun = epochs + 1, len(told)
            for minibatch in self._minibatches(batch, learner.config.batch_size, iteration, epochs):
                with kept_if_not_finite(minibatch, self._run.root):
                    told.append(learner.update(minibatch.to(learner.device), loss))
            if np.mean([metrics["policy/kl"] for metrics in told[begun:]]) > surrogate.max_kl:
                break
        return {name: float(np.mean([metrics[name] for metrics in told])) for name in told[0]} | {
            "policy/first_log_ratio": told[0]["policy/max_log_ratio"],
            "policy/epochs": float(epochs),
            "learner/decisions": float(len(batch)),
        }

    @torch.no_grad()
    def _first_log_prob(self, batch: Decisions, batch_size: int) -> Tensor:
        first, _ = load_policy(self._run.checkpoint(0) / PRETRAINED)
        parts = [batch.rows(rows) for rows in torch.arange(len(batch)).split(batch_size)]
        return torch.cat([predict(first, part).actions.log_prob(part.drawn) for part in parts])

    def _minibatches(self, batch: Decisions, batch_size: int, iteration: int, epoch: int) -> Iterator[Decisions]:
        state = np.random.SeedSequence([self._seed, iteration, epoch]).generate_state(1, np.uint64)
        order = torch.randperm(len(batch), generator=torch.Generator().manual_seed(int(state[0] >> 1)))
        return map(batch.rows, order.tensor_split(max(1, round(len(batch) / batch_size))))
