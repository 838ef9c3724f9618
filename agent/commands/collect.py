"""The command `llamarm collect`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from agent.commands.shared.options import parse_with, recipe_for, recipe_of
from agent.runs.messages import say_next
from agent.runs.worlds import WorldPython, counted
from agent.training.config import DemonstrationsConfig
from agent.training.demonstrations import collect_demonstrations
from envs.make import WORLDS
from rollout.workers.workers import WorkersConfig


@dataclass(frozen=True, kw_only=True)
class Collect:
    """Record the scripted expert's demonstrations as a LeRobotDataset. Called again, it continues."""

    out: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """The dataset's folder."""
    world_python: WorldPython = None
    """Interpreter in which the world, a MODULE:FUNCTION, runs, for packages that conflict with ours
    (docs/your_task.md)."""


def run(args: list[str]) -> None:
    """Run the command; the first argument is a recipe or a world."""
    is_world = bool(args) and (args[0] in WORLDS or ":" in args[0])
    if is_world:
        name, demonstrations, rollout = args[0], DemonstrationsConfig(world=args[0]), WorkersConfig()
    else:
        name, demonstrations, rollout = _of_recipe(args)
    options = parse_with(Collect, f"collect {name}", args[1:], demonstrations=demonstrations, rollout=rollout)
    demonstrations = options.demonstrations.in_interpreter(options.world_python)
    outcome = collect_demonstrations(demonstrations, options.out, options.rollout)
    for task, count in outcome.episodes.items():
        failed = ", ".join(f"{reason} {times}" for reason, times in outcome.failed[task].items())
        print(
            f"{task}: {counted(count, 'episode')}"
            + (f"; resampled after the expert failed: {failed}" if failed else "")
        )
    recipe = recipe_for(name) if is_world else name
    _, meant, _ = _of_recipe([recipe])
    place = ["--demonstrations.world", demonstrations.world, "--demonstrations.tasks", *outcome.episodes]
    if (meant.world, meant.tasks) == (demonstrations.world, demonstrations.tasks):
        place = []
    say_next("clone them", "train", recipe, "--data", options.out, *place, "--out", f"{options.out}_policy")


def _of_recipe(args: list[str]) -> tuple[str, DemonstrationsConfig, WorkersConfig]:
    name, recipe = recipe_of("collect", args)
    config = recipe.from_demonstrations()
    return name, config.demonstrations, config.rollout
