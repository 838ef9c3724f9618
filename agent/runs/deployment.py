"""A policy's deployment (n_action_steps, world, tasks) by its run's record, and warnings where its use differs."""

from __future__ import annotations

from pathlib import Path

from agent.runs.messages import say
from agent.runs.run_folder import run_of
from envs.errors import UserError
from vla_model.files.deployment import Deployment


def recorded_deployment(policy: str | Path, chunk_size: int) -> Deployment | None:
    """The deployment of a policy that was saved without one, from its run's record; None if it is of no run.

    Raises:
        UserError: the record lacks it.
    """
    run = run_of(policy)
    if run is None:
        return None
    try:
        config = run.record["config"]
        practised = config.get("practice") or config.get("demonstrations") or {}
        steps = min(config["evaluation"]["n_action_steps"] or chunk_size, chunk_size)
        if config.get("data") and not config["evaluation"]["episodes_per_task"]:
            practised = {}  # of recordings, and evaluated nowhere: see deployment_of in agent/training/loop.py
        return Deployment.of(
            {"n_action_steps": steps, "world": practised.get("world"), "tasks": practised.get("tasks", [])}
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{run.record_file} lacks the deployment of {policy}: missing or invalid {error}") from error


def say_differences(name: str, made_for: Deployment | None, used: Deployment) -> None:
    """Print how a policy's use differs from its deployment, if that is known."""
    for line in made_for.differences(used) if made_for else ():
        say(name, line)
