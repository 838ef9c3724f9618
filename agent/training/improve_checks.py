"""Checks before a fine-tuning run starts."""

from __future__ import annotations

from agent.runs.checks import check_config, check_episodes
from agent.runs.run_folder import RunFolder
from agent.training.config import ImproveConfig
from agent.training.demonstrations import check_expert
from agent.training.practice import check_practice
from envs.errors import UserError
from envs.make import check_device
from envs.world import World
from vla_model.files.deployment import check_n_action_steps
from vla_model.inputs.processor import Processor
from vla_model.weights.checkpoint import load_shape


def check_improvement(config: ImproveConfig) -> None:
    """Refuse a config that would fail later.

    Raises:
        UserError: the run could not be completed.
    """
    check_config(config)
    check_device(config.practice.world, config.practice.device)
    algorithm = config.algorithm
    check_practice(config.practice, config.iterations, rounds=algorithm.rounds, repeats=algorithm.repeats)
    if config.evaluation.episodes_per_task < 1:
        raise UserError("evaluation.episodes_per_task must be at least 1: a fine-tuned policy is always evaluated")
    if config.overlap and config.practice.focus:
        raise UserError(
            "leave out overlap or practice.focus: with overlap, specs are chosen before the evaluation that focus uses"
        )
    if algorithm.asks_expert and config.rollout.inference is not None:
        raise UserError("leave out rollout.inference: the expert must act in the worker's own world")


def check_initial_policy(config: ImproveConfig, run: RunFolder, world: World) -> Processor:
    """Check that the run can start in that world with its initial policy, or resume from its last checkpoint.

    Returns:
        That policy's processor.

    Raises:
        UserError: there is no such policy, it was made for another world, the config does not fit it, or the world
            lacks a task or variation.
    """
    check_episodes(world, config.practice.tasks, (config.practice.variation,))
    check_episodes(world, config.practice.tasks, config.evaluation.variations)
    _, shape, processor = load_shape(config.initial_policy(run))
    processor.check(world.world_spec)
    check_n_action_steps(config.evaluation.n_action_steps or shape.chunk_size, shape.chunk_size)
    config.algorithm.check_model(shape, config.fine_tuning, config.iterations)
    if config.algorithm.asks_expert:
        check_expert(world, config.practice.tasks, config.practice.variation)
    return processor
