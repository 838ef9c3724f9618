"""Errors of actions on recorded episodes (agent/evaluation/open_loop.py): tables in the terminal, plots in reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from rich.table import Table

from agent.evaluation.open_loop import PREDICTORS
from agent.report.curves import ACCENT, INK, STYLE, as_svg
from agent.report.tables import print_table


def print_action_error(found: Mapping[str, Any]) -> None:
    """Print the content of action_error.json: errors by dimension, and of all dimensions by task."""
    table = Table("action", "unit", *_HEADERS)
    for row in dimension_rows(found):
        table.add_row(row["name"], row["unit"], *(f"{value:.4g}" for value in row["errors"]))
    print_table(table)
    table = Table("task", "episodes", *_HEADERS)
    for row in task_rows(found):
        table.add_row(row["task"], str(row["episodes"]), *(f"{value:.3f}" for value in row["errors"]))
    print_table(table)
    print("By action: mean absolute error in its unit. By task: the mean over actions, in standard deviations of each.")


_HEADERS = ("policy", "repeat last", "mean")


def dimension_rows(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """{"name", "unit", "errors" of the policy and the trivial predictors} of every dimension, over all tasks."""
    errors = found["all"]["mean_absolute_error"]
    columns = zip(*(errors[name] for name in PREDICTORS), strict=True)
    rows = zip(found["names"], found["units"], columns, strict=True)
    return [{"name": name, "unit": unit, "errors": list(values)} for name, unit, values in rows]


def task_rows(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """{"task", "episodes", "errors"} of every task and of all; the mean error in standard deviations of each action."""
    parts = found["per_task"] | ({"all": found["all"]} if len(found["per_task"]) > 1 else {})
    spread = np.array(found["spread"])
    return [
        {
            "task": task,
            "episodes": part["episodes"],
            "errors": [float((np.array(part["mean_absolute_error"][name]) / spread).mean()) for name in PREDICTORS],
        }
        for task, part in parts.items()
        if part["actions"]
    ]


def plot_episode(plot: Mapping[str, Any], names: Sequence[str]) -> str:
    """Recorded and predicted actions of an episode as an <svg>, one small plot per dimension."""
    recorded, predicted = np.array(plot["recorded"]), np.array(plot["predicted"])  # [T, A] each
    columns = min(len(names), 3)
    rows = -(-len(names) // columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.0 * columns, 1.5 * rows), layout="constrained")
        for i, name in enumerate(names):
            axes = figure.add_subplot(rows, columns, i + 1)
            axes.plot(recorded[:, i], color=INK, linewidth=1.2)
            axes.plot(predicted[:, i], color=ACCENT, linewidth=1.2)
            axes.set_title(name, fontsize=8, color=INK, loc="left")
            axes.spines["left"].set_visible(False)
        return as_svg(figure, f"episode {plot['episode']}, {plot['task']}")
