"""How the policy of a run was used by its record, and what differs from how one is used now."""

from __future__ import annotations

import sys
from pathlib import Path

from agent.runs.run_folder import run_of
from envs.errors import UserError
from vla_model.files.deployment import Deployment


def recorded_deployment(policy: str | Path, chunk_size: int) -> Deployment | None:
    """How a policy that was saved without a word on it was used, by the record of the run that it is of, if of one.

    Raises:
        UserError: that record says something else than how a policy is used.
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
        raise UserError(f"{run.record_file} does not say how {policy} was used: it lacks or misuses {error}") from error


def say_differences(name: str, made_for: Deployment | None, used: Deployment) -> None:
    """Say how a policy is used otherwise than it was made for, as far as that is known."""
    for line in made_for.differences(used) if made_for else ():
        say_of(name, line)


def say_of(name: str, line: str) -> None:
    """Say something of a policy on standard error."""
    print(f"llamarm: {name}: {line}", file=sys.stderr)
