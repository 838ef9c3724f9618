"""What can be refused before a run that begins with a policy does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from agent.runs.checks import check_config, check_episodes
from agent.runs.run_folder import PRETRAINED, RunFolder, policy_folder
from agent.training.demonstrations import check_expert
from agent.training.practice import check_practice
from envs.errors import UserError
from envs.make import check_device
from envs.world import World
from vla_model.files.deployment import check_n_action_steps
from vla_model.inputs.processor import Processor
from vla_model.weights.checkpoint import load_shape

if TYPE_CHECKING:
    from agent.training.improve import ImproveConfig


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
    check_n_action_steps(config.evaluation.n_action_steps or shape.chunk_size, shape.chunk_size)
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
