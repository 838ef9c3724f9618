"""Group-relative policy optimisation (Shao et al. 2024, "DeepSeekMath", section 4.1; no value head).

A group is G episodes of one EpisodeSpec: the same task, instruction and initial state, bit for bit; only the sampled
actions differ (EpisodeSpec.repeat). Every action of episode i of its group has the advantage

    A_i = (R_i - mean(R)) / (std(R) + e)          R: 1 for success, else 0; or the sum of the world's dense reward

    L = surrogate(A) with weights w = mean(T) / T_i

    uniform groups    all successes or all failures: no gradient, so they are dropped and new groups sampled in their
                      place, in at most `max_rounds` rounds, so a policy that always succeeds does not loop for ever
    length            a long episode's actions weigh less, so that every episode weighs the same (w above)
    after success     the world ends an episode with its success, so there is no action after it to mask

Left out: a KL penalty by default, as later work dropped it (surrogate.reference_kl_weight enables it); a reward for
format or length.

Shape letters: T control steps of an episode.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from torch import Tensor

from agent.algorithms.grpo_config import GRPOConfig
from agent.algorithms.method import Specs
from agent.algorithms.ppo import PolicyGradient, predict, surrogate_loss
from agent.algorithms.rollout_batch import Advantages, Decisions, RolloutBatch, rewards
from agent.learning.gradients import Loss
from envs.types import EpisodeSpec
from rollout.types import RunEpisodes, Trajectory
from vla_model.model import VLA


class GRPO(PolicyGradient[GRPOConfig]):
    """GRPO: trains on groups whose episodes have different returns."""

    def collect(self, run: RunEpisodes, specs: Specs, iteration: int) -> list[Trajectory]:
        del iteration
        executing = partial(run, n_action_steps=self._context.n_action_steps)
        return collect_groups(executing, lambda round_: specs(round_, self._config.group_size), self._config)

    def advantages(self, trajectories: list[Trajectory]) -> RolloutBatch:
        return grpo_advantages(trajectories, self._config)

    def loss(self, iteration: int) -> Loss[VLA]:
        del iteration
        return partial(grpo_loss, config=self._config)


def groups(trajectories: Iterable[Trajectory]) -> list[list[Trajectory]]:
    """Episodes grouped by initial state, in the order of their specs."""
    found: dict[EpisodeSpec, list[Trajectory]] = {}
    for trajectory in sorted(trajectories, key=lambda t: t.spec):
        found.setdefault(replace(trajectory.spec, repeat=0), []).append(trajectory)
    return list(found.values())


def score(trajectory: Trajectory, config: GRPOConfig) -> float:
    """R of an episode."""
    return float(rewards(trajectory, config.reward).sum())


def is_mixed(group: Sequence[Trajectory], config: GRPOConfig) -> bool:
    """Whether its episodes differ in R."""
    return len({score(t, config) for t in group}) > 1


def collect_groups(
    run: Callable[[Sequence[EpisodeSpec]], Iterable[Trajectory]],
    specs: Callable[[int], Sequence[EpisodeSpec]],
    config: GRPOConfig,
) -> list[Trajectory]:
    """Collect until as many groups are mixed as one round has initial states, or the rounds are used up.

    Args:
        run: runs every spec once.
        specs: initial states of a round, by its number; equally many in every round.
    """
    found: list[Trajectory] = []
    num_mixed = 0
    for round_ in range(config.max_rounds):
        initial = specs(round_)
        missing = initial[: len(initial) - num_mixed]
        new = list(run([replace(spec, repeat=i) for spec in missing for i in range(config.group_size)]))
        found += new
        num_mixed += sum(is_mixed(group, config) for group in groups(new))
        if num_mixed >= len(initial):
            break
    return found


def grpo_advantages(trajectories: Sequence[Trajectory], config: GRPOConfig) -> RolloutBatch:
    """Advantages of the episodes of mixed groups; the others are left out."""
    all_groups = groups(trajectories)
    mixed = [group for group in all_groups if is_mixed(group, config)]
    kept = [t for group in mixed for t in group]
    mean_length = np.mean([t.num_steps for t in kept]) if kept else 0.0
    found = []
    for group in mixed:
        scores = np.array([score(t, config) for t in group])
        advantages = (scores - scores.mean()) / (scores.std() + 1e-6 if config.standardise else 1.0)
        for t, advantage in zip(group, advantages, strict=True):
            ones = np.ones(t.num_steps, np.float32)
            found.append(
                Advantages(
                    advantage=np.float32(advantage) * ones,
                    target=0 * ones,
                    weight=np.float32(mean_length / t.num_steps) * ones,
                )
            )
    metrics = {"groups/all": float(len(all_groups)), "groups/mixed": float(len(mixed))}
    return RolloutBatch(trajectories=kept, advantages=found, metrics=metrics)


def grpo_loss(model: VLA, batch: Decisions, config: GRPOConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss above, and its metrics."""
    return surrogate_loss(predict(model, batch), batch, config.surrogate)
