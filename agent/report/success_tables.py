"""An evaluation and its blind controls as tables in the terminal."""

from __future__ import annotations

from rich.table import Table

from agent.evaluation.evaluate import Evaluation
from agent.evaluation.statistics import Average, Proportion, averages
from agent.report.tables import print_table


def print_success(evaluation: Evaluation, controls: dict[str, Evaluation]) -> None:
    """Print success by task, by variation and by group, and the reasons of failures."""
    table = Table("task", "success", "95 % interval", "episodes", *controls)
    blind = [control.per_task | {"all": control.success} for control in controls.values()]
    for task, success in (evaluation.per_task | {"all": evaluation.success}).items():
        others = [_percent(control[task].rate) for control in blind]
        table.add_row(task, _percent(success.rate), _interval(success), str(success.episodes), *others)
    print_table(table)
    if len(evaluation.per_variation) > 1:
        table = Table("task", *evaluation.per_variation)
        parts = [evaluation.of_variation(name) for name in evaluation.per_variation]
        for task in evaluation.per_task:
            table.add_row(task, *(_percent(part[task].rate) if task in part else "" for part in parts))
        table.add_row("all", *(_percent(success.rate) for success in evaluation.per_variation.values()))
        table.add_row("95 % interval", *map(_interval, evaluation.per_variation.values()))
        print_table(table)
    if evaluation.task_groups:
        print_table(_groups_table(evaluation, controls))
    for reason, count in evaluation.failures.items():
        print(f"failed: {reason}, {count} episode{'s' * (count > 1)}")


def _groups_table(evaluation: Evaluation, controls: dict[str, Evaluation]) -> Table:
    """Success by the suite's groups of tasks, the mean over these, and the mean over tasks."""
    table = Table("group", "success", "95 % interval", *controls)
    blind = [averages(control.per_task, control.task_groups) for control in controls.values()]
    for name, success in averages(evaluation.per_task, evaluation.task_groups).items():
        table.add_row(
            name, _percent(success.rate), _interval(success), *(_percent(other[name].rate) for other in blind)
        )
    return table


def _percent(rate: float) -> str:
    return f"{100 * rate:.1f} %"


def _interval(success: Proportion | Average) -> str:
    low, high = success.interval
    return f"{100 * low:.1f} to {100 * high:.1f} %"
