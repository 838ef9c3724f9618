"""The world of a run: suite, device, tasks and variation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Self

import tyro

from agent.runs.checks import check_episodes
from envs.errors import UserError
from envs.make import Device, check_device, make_world
from envs.suites.hosted.function_world import world_name
from envs.world import World
from vla_model.files.deployment import Deployment

WorldPython = Annotated[Path | None, tyro.conf.arg(metavar="PATH")]
"""An option of commands: the interpreter of a world MODULE:FUNCTION, if not ours."""


def amount_of(what: str, per_task: int, tasks: Sequence[str]) -> str:
    """As "2,400 demonstrations of 6 tasks"; without tasks, so of all of a world, as "400 demonstrations per task".

    Args:
        what: one of them, e.g. "demonstration".
        per_task: how many of each task.
        tasks: their names; none for all of a world.
    """
    if not tasks:
        return f"{counted(per_task, what)} per task"
    return f"{counted(per_task * len(tasks), what)} of {counted(len(tasks), 'task')}"


def counted(number: int, what: str) -> str:
    """As "1 task" and "2,400 tasks"."""
    return f"{number:,} {what}" + ("" if number == 1 else "s")


@dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """The world of a run's episodes, for training and evaluation."""

    world: str = "tabletop"
    """Name for `make_world`."""
    device: Device = "cpu"
    """Simulator, for training and evaluation: MuJoCo, or MuJoCo Warp on the CPU or on a GPU (then workers need
    --gpus-per-worker)."""
    tasks: tuple[str, ...] = ()
    """Empty for all tasks of the world."""
    variation: str = "train"

    @property
    def make_worlds(self) -> Callable[[int], World]:
        """A picklable function of a number of worlds that creates them on the device."""
        return partial(make_world, self.world, device=self.device)

    def in_interpreter(self, python: Path | None) -> Self:
        """The same with the world, a MODULE:FUNCTION, in that interpreter; as it is if none is given.

        Raises:
            UserError: see `world_name`.
        """
        return self if python is None else replace(self, world=world_name(self.world, python))

    def check_names(self, *variations: Sequence[str]) -> None:
        """Check names without importing a module of the user's own, which may take long.

        Args:
            variations: lists of them, each without a name that comes twice.

        Raises:
            UserError: the suite, its device, a task or a variation does not exist.
        """
        check_device(self.world, self.device)
        if ":" not in self.world:
            with closing(make_world(self.world)) as world:
                for names in variations:
                    check_episodes(world, self.tasks, names)

    def deployment(self, n_action_steps: int) -> Deployment:
        """The deployment of a policy for this world."""
        return Deployment(n_action_steps=n_action_steps, world=self.world, tasks=self.tasks)


def named_world(world: str | None, python: Path | None) -> str | None:
    """The name of the world for `make_world`, in that interpreter if one is given.

    Raises:
        UserError: an interpreter without a world, or see `world_name`.
    """
    if python is None:
        return world
    if world is None:
        raise UserError(f"world-python {python} is the interpreter of a MODULE:FUNCTION; name that with --world")
    return world_name(world, python)
