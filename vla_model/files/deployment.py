"""Deployment: how a policy is meant to be used, saved with the policy so that every copy acts the same.

Control rate, cameras, state and actions are in the processor's WorldSpec.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from envs.errors import UserError
from vla_model.files.folders import read_json
from vla_model.files.old_names import with_new_names

PROCESSOR_FILE = "processor.json"
"""Of a policy's folder, with the deployment among others."""


def saved_world(folder: Path) -> str | None:
    """Name of the world that a policy was made for, read without loading it; None where the folder does not say.

    Raises:
        UserError: processor.json is damaged.
    """
    path = folder / PROCESSOR_FILE
    deployment = read_json(path, remedy="take another copy of the policy").get("deployment") if path.exists() else None
    world = deployment.get("world") if isinstance(deployment, dict) else None
    return world if isinstance(world, str) else None


def check_n_action_steps(n_action_steps: int, chunk_size: int) -> None:
    """
    Raises:
        UserError: it is not within 1..chunk_size.
    """
    if not 1 <= n_action_steps <= chunk_size:
        raise UserError(f"n_action_steps must be within 1..{chunk_size}, the chunk's length, got {n_action_steps}")


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """The use that a policy was trained and evaluated for."""

    n_action_steps: int
    """Actions to execute of each chunk before the next one is predicted, at least 1."""
    world: str | None = None
    """Name for `make_world`; None for a policy of no such world, e.g. of a robot."""
    tasks: tuple[str, ...] = ()
    """Tasks of that world; empty for all."""

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self) | {"tasks": list(self.tasks)}

    def differences(self, used: Deployment) -> list[str]:
        """How `used` differs from this deployment, as messages for users."""
        found = []
        if used.n_action_steps != self.n_action_steps:
            found.append(
                f"{used.n_action_steps} actions of each chunk are executed; the policy was made for "
                f"{self.n_action_steps}"
            )
        if None not in (self.world, used.world) and used.world != self.world:
            found.append(f"it acts in {used.world}; the policy was made for {self.world}")
        elif self.tasks and (other := [task for task in used.tasks or ("all tasks",) if task not in self.tasks]):
            found.append(f"it does {', '.join(other)}; the policy was made for {', '.join(self.tasks)}")
        return found

    @classmethod
    def of(cls, content: object) -> Deployment:
        """From the output of `to_json`.

        Raises:
            UserError: a field is missing or of another type.
        """
        if not isinstance(content, dict):
            raise UserError(f"a deployment is {content!r}, expected a map of n_action_steps, world and tasks")
        content = with_new_names(content)
        steps, world, tasks = (content.get(name) for name in ("n_action_steps", "world", "tasks"))
        if type(steps) is not int or steps < 1:
            raise UserError(f"a deployment's n_action_steps is {steps!r}, expected a whole number of at least 1")
        if world is not None and not isinstance(world, str):
            raise UserError(f"a deployment's world is {world!r}, expected a name")
        if not isinstance(tasks, list) or not all(isinstance(task, str) for task in tasks):
            raise UserError(f"a deployment's tasks are {tasks!r}, expected a list of names")
        return cls(n_action_steps=steps, world=world, tasks=tuple(tasks))
