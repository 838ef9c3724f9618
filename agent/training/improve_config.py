"""What decides a run that begins with a policy, and what can be refused before it does."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, NoReturn

import tyro
from annotated_types import Interval

from agent.algorithms.method import AlgorithmConfig
from agent.evaluation.measure import EvaluationConfig, Evaluations
from agent.learning.learner import LearnerConfig
from agent.runs.checks import HOW, Seed, Share, check_config, check_episodes
from agent.runs.run_folder import PRETRAINED, RunFolder, policy_folder
from agent.training.demonstrations import check_expert
from agent.training.practice import PracticeConfig, check_practice
from envs.errors import UserError
from envs.make import check_device
from envs.world import World
from rollout.workers.workers import WorkersConfig
from vla_model.files.deployment import check_execute_steps
from vla_model.files.folders import check_place
from vla_model.inputs.processor import Processor
from vla_model.weights.checkpoint import load_shape
from vla_model.weights.finetune import FineTuning


@dataclass(frozen=True, kw_only=True)
class ImproveConfig:
    """Everything that decides a run that begins with a policy."""

    algorithm: AlgorithmConfig
    init: Annotated[str, tyro.conf.arg(metavar="POLICY")] = ""
    """The policy to begin with: a run, a checkpoint, or a policy's folder."""
    fine_tuning: FineTuning = field(default_factory=FineTuning)
    seed: Seed = 0
    """Of drawn actions, batches, augmentation and the first weights of adapters."""
    practice: PracticeConfig = field(default_factory=PracticeConfig)
    iterations: Annotated[int, Interval(ge=1, le=100_000)] = 40
    overlap: bool = False
    """Collect an iteration's episodes while the one before is learned from: faster where there are cores for both, but
    every episode is of weights one iteration old."""
    rollout: Annotated[WorkersConfig, tyro.conf.arg(name="")] = field(default_factory=WorkersConfig)
    """The processes that collect and evaluate; on the command line without a prefix: --workers, --ray-address."""
    cache: Annotated[str, tyro.conf.arg(metavar="DIR")] = field(default="", metadata=HOW)
    """A folder for what is decoded of datasets; beside each of them if not given."""
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    """Of the first and the best policy, at the end. Its execute_steps hold in practice too."""
    evaluate_every: Annotated[int, Interval(ge=1, le=100_000)] = 5
    """Iterations between two evaluations that choose the best policy."""
    selection_episodes: Annotated[int, Interval(ge=1, le=100_000)] = 10
    """Per task, in such an evaluation."""
    collapse_share: Share = 0.5
    """The run ends where the success of such an evaluation falls below this share of the best."""

    def check(self) -> None:
        """
        Raises:
            UserError: what the learner is told contradicts the algorithm, or caches cannot be kept where they are to.
        """
        check_place("cache", self.cache)
        learner = self.learner
        if learner.num_processes != 1:
            raise UserError(
                f"learner.num-processes is {learner.num_processes}, but what a policy practised is learned by one "
                "process"
            )
        self.algorithm.check_learner(learner, self.iterations)

    def from_demonstrations(self) -> NoReturn:
        """
        Raises:
            UserError: there are none.
        """
        raise UserError(
            "this recipe begins with a policy: it has no demonstrations to collect, and no grid begins with it"
        )

    def ready(self, run: RunFolder) -> AbstractContextManager[Callable[[], Evaluations]]:
        """See agent/training/improve.py."""
        from agent.training.improve import ready

        return ready(self, run)


def check_improvement(config: ImproveConfig) -> None:
    """Refuse now what would fail after hours.

    Raises:
        UserError: the run could not come to its end.
    """
    check_config(config)
    check_device(config.practice.world, config.practice.device)
    algorithm = config.algorithm
    check_practice(config.practice, config.iterations, rounds=algorithm.rounds, repeats=algorithm.repeats)
    if config.evaluation.episodes_per_task < 1:
        raise UserError("a policy that practised is evaluated; evaluation.episodes_per_task must be at least 1")
    if config.overlap and config.practice.focus:
        raise UserError("with overlap an iteration's episodes are chosen before the evaluation that focus looks at")
    if algorithm.asks_expert and config.rollout.inference is not None:
        raise UserError("the expert must act in the worker's own world: leave out rollout.inference")


def check_beginning(config: ImproveConfig, run: RunFolder, world: World) -> Processor:
    """Whether the run can begin in that world with the policy that it names, or go on with its last checkpoint.

    Returns:
        That policy's processor.

    Raises:
        UserError: there is no such policy, it was made for another world, what the config asks of it does not fit it,
            or the world lacks a task or variation.
    """
    check_episodes(world, config.practice.tasks, (config.practice.variation,))
    check_episodes(world, config.practice.tasks, config.evaluation.variations)
    _, shape, processor = load_shape(beginning(config, run))
    processor.check(world.world_spec)
    check_execute_steps(config.evaluation.execute_steps or shape.chunk_length, shape.chunk_length)
    config.algorithm.check_model(shape, config.fine_tuning, config.iterations)
    if config.algorithm.asks_expert:
        check_expert(world, config.practice.tasks, config.practice.variation)
    return processor


def beginning(config: ImproveConfig, run: RunFolder) -> Path:
    """The folder of the policy to begin with, or to go on with.

    Raises:
        UserError: none is named, or it holds none.
    """
    last = run.last_checkpoint()
    if last is not None:
        return last / PRETRAINED
    if not config.init:
        raise UserError("there is no policy to begin with; name a run or a policy's folder with --init")
    return policy_folder(config.init)
