"""The command `llamarm scale`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from agent.commands.shared.options import parse_with, recipe_of
from agent.runs.messages import say, say_next
from agent.runs.run_folder import RunFolder, check_start, start_run
from agent.runs.run_lock import locked
from agent.runs.worlds import amount_of, counted
from agent.studies.scale.config import GridConfig, Place, ScaleConfig, all_places, held_out_places
from envs.errors import UserError
from vla_model.files.folders import write_json, write_whole

if TYPE_CHECKING:
    from agent.studies.scale.effort import Effort, Prediction
    from agent.studies.scale.grid import Budget
    from agent.studies.scale.law import Cell, Fit


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Scaling law: train a grid of model and data sizes, and fit it. Called again, it continues."""

    out: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """Folder of the grid."""
    estimate: bool = False
    """Only print the number of runs and the time that they would take on this machine."""


def run(args: list[str]) -> None:
    """Run the command; the first argument is a recipe."""
    name, recipe = recipe_of("scale", args)
    options = parse_with(Scale, f"scale {name}", args[1:], grid=GridConfig(), run=recipe.from_demonstrations())
    config = ScaleConfig(grid=options.grid, run=options.run)
    _check(config, RunFolder(options.out))

    from agent.studies.scale.grid import budget_of, measured_budget, record_budget

    if options.estimate:
        print(_ahead(config, measured_budget(config)))
        say_next("train them", "scale", *(arg for arg in args if arg != "--estimate"))
        return
    command, resume = ["llamarm", "scale", *args], RunFolder(options.out).record_file.exists()
    check_start(options.out, config, resume=resume)
    with locked(options.out, command):
        # Too few hours are refused before anything is written.
        budget = budget_of(config, RunFolder(options.out))
        folder = start_run(options.out, config, resume=resume)
        record_budget(budget, folder)
        say("scale", _ahead(config, budget))
        with folder.session(command):
            found = _run(config, folder, budget, command)
        report(config, folder, budget, found)


def report(config: ScaleConfig, folder: RunFolder, budget: Budget, found: dict[Place, Cell]) -> None:
    """Fit, write scale.json, scale.md and scale.png, and print."""
    from agent.studies.scale.effort import efforts, predict
    from agent.studies.scale.law import fit_with_bootstrap
    from agent.studies.scale.tables import plot, tables

    held_out = set(held_out_places(config))
    runs = [(place, cell) for place, cell in found.items() if place not in held_out]
    fit = fit_with_bootstrap([cell for _, cell in runs])
    point = best_cell([cell for _, cell in runs])
    doublings = efforts(fit, (point.parameters, point.demonstrations, point.experts))
    predictions = [predict(fit, found[place]) for place in held_out_places(config)]
    content = _json(runs, fit, doublings, point, predictions, budget)
    write_json(folder.root / "scale.json", content)
    lines = [f"# {folder.root.resolve().name}", "", *tables(runs, fit, doublings, point, predictions, budget)]
    write_whole(folder.root / "scale.md", "\n".join(lines) + "\n")
    plot(runs, fit, predictions, folder.root / "scale.png")
    print("\n".join(lines))
    for file in ("scale.json", "scale.md", "scale.png"):
        print(folder.root / file)
    best = next(place for place, cell in runs if cell is point)
    say_next("see the grid's best policy on one page", "report", folder.root / "cells" / best.name)


def best_cell(cells: Sequence[Cell]) -> Cell:
    """The best run of the grid: highest success rate, then lowest error."""
    return max(cells, key=lambda cell: (cell.successes / cell.episodes, -cell.error))


def _check(config: ScaleConfig, folder: RunFolder) -> None:
    """
    Raises:
        UserError: see check_run; or the grid's runs cannot be timed or compared.
    """
    run = config.run
    if run.learner.num_processes != 1 or run.data or run.init or run.evaluation.episodes_per_task < 1:
        raise UserError(
            "runs of a grid train in one process from random weights, on demonstrations that it collects, and are "
            "evaluated: leave out learner.num_processes, init, data and evaluation.episodes_per_task 0"
        )
    every = all_places(config)
    run.check_names(folder)

    from agent.studies.scale.grid import config_of
    from agent.training.loop import check_run

    for place in every:
        check_run(config_of(place, config, updates=1), folder)


def _run(config: ScaleConfig, folder: RunFolder, budget: Budget, command: list[str]) -> dict[Place, Cell]:
    from agent.studies.scale.grid import run_grid

    found: dict[Place, Cell] = {}
    for place, cell in run_grid(config, folder, budget, command):
        found[place] = cell
        success = f"{cell.successes} of {cell.episodes} succeeded"
        print(f"{len(found)}: {place.name}: error {cell.error:.4f}, {success}", file=sys.stderr, flush=True)
    return found


def _ahead(config: ScaleConfig, budget: Budget) -> str:
    """What the grid will do, for its user, with the amounts and the duration of it."""
    from agent.studies.scale.grid import config_of

    every = all_places(config)
    tasks = config.run.demonstrations.tasks
    evaluation = config_of(every[0], config, budget.updates).evaluation
    demonstrations = amount_of("demonstration", max(place.amount for place in every), tasks)
    return (
        f"collects {demonstrations}; makes {budget.updates:,} updates in each of {counted(len(every), 'run')}, "
        f"together {budget.hours:.1f} hours on this machine; each run {evaluation.ahead(tasks)}"
    )


def _json(
    runs: Sequence[tuple[Place, Cell]],
    fit: Fit,
    doublings: Sequence[Effort],
    point: Cell,
    predictions: Sequence[Prediction],
    budget: Budget,
) -> dict[str, object]:
    """The content of scale.json: everything but the bootstrap samples."""
    return {
        "budget": asdict(budget),
        "cells": [asdict(place) | asdict(cell) for place, cell in runs],
        "error": asdict(fit.error) | {"residual_std": fit.error_std},
        "success": asdict(fit.success) | {"episodes_share": fit.episodes_share},
        "from": asdict(point),
        "efforts": [asdict(effort) for effort in doublings],
        "held_out": [asdict(found) for found in predictions],
    }
