"""Model selection during a run: by the success rate of the policy's mode on held-out episodes used for nothing else.

The best of many evaluations is biased upwards, so the final evaluation uses other episodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agent.evaluation.evaluate import evaluate
from agent.learning.learner import Learner
from agent.training.checkpoints import acting_weights
from envs.types import EpisodeSpec
from envs.world import World
from rollout.workers.workers import Workers
from vla_model.inputs.processor import Processor
from vla_model.model import VLA
from vla_model.weights.checkpoint import save_policy


@dataclass(frozen=True, kw_only=True)
class Progress:
    """State of a run that a checkpoint holds besides weights."""

    success: float = 0.0
    """Of the latest evaluation: the mean over the tasks."""
    best_success: float = -1.0
    best_iteration: int = 0
    success_of_tasks: dict[str, float] = field(default_factory=dict)
    """Of the latest evaluation."""


@dataclass(frozen=True)
class Selection:
    """Evaluates, and keeps the best policy in a folder."""

    evaluators: Workers
    """Worker processes whose policies act by their mode with the learner's weights."""
    world: World
    """An example of theirs."""
    specs: Sequence[EpisodeSpec]
    """The held-out episodes of model selection."""
    n_action_steps: int | None
    """Actions executed of each chunk."""
    best: Path
    """Folder that the best policy is saved to."""

    def evaluate(
        self, learner: Learner[VLA], processor: Processor, iteration: int, progress: Progress
    ) -> tuple[Progress, dict[str, float]]:
        """Evaluate this iteration's policy and save it if it is the best; returns the progress and success rates."""
        self.evaluators.publish(iteration, acting_weights(learner))
        found = evaluate(
            self.evaluators.collect,
            self.world,
            self.specs,
            n_action_steps=self.n_action_steps,
            broken=self.evaluators.report.broken,
        )
        success = found.mean_over_tasks
        rates = {task: proportion.rate for task, proportion in found.per_task.items()}
        is_best = success > progress.best_success
        if is_best:
            save_policy(self.best, learner.average, processor)
        progress = Progress(
            success=success,
            best_success=success if is_best else progress.best_success,
            best_iteration=iteration if is_best else progress.best_iteration,
            success_of_tasks=rates,
        )
        of_tasks = {f"evaluation/success_{task}": rate for task, rate in rates.items()}
        return progress, {"evaluation/success": success, **of_tasks}
