"""An entry from the folder of a run or of an evaluation."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from agent.evaluation.eval_info import read_eval_info
from agent.runs.run_folder import RunFolder
from benchmarks.ledger.entries import Entry, EntryError, Figure


def entry_of(root: Path, title: str, page: str, beside: str) -> Entry:
    """The entry of a finished run: its last session's command, commit, date and machine, its success and its times.

    Args:
        beside: what else ran on the machine.

    Raises:
        EntryError: the run did not finish, or ran code that no commit holds.
        UserError: nothing was evaluated there.
    """
    run = RunFolder(root)
    record, info = run.record, read_eval_info(run.eval_info)
    session, config = record["sessions"][-1], record["config"]
    if session["outcome"] != "finished":
        raise EntryError(f"{root} did not finish: {session['outcome']}")
    git = session["git"]
    if git is None or git["dirty"]:
        raise EntryError(f"{root} ran code that no commit holds; commit it and measure again")
    machine = session["machine"]
    gpus = ", ".join(machine["gpus"]) or "no GPU"
    weights = config.get("sft", {})
    return Entry(
        title=title,
        page=page,
        commands=(shlex.join(session["command"]),),
        commit=git["commit"][:7],
        date=session["started"][:10],
        machine=f"{machine['cores']} cores of {machine['cpu']}, {gpus}{f', {beside}' if beside else ''}",
        training_seeds=(config["seed"],),
        evaluation_seeds=tuple(info["protocol"]["seeds"]),
        simulator_labels=bool(weights.get("localization_weight") or weights.get("pointing_weight"))
        if weights
        else None,
        figures=_success(info) | _controls(info) | _times(record),
    )


def _success(info: dict[str, Any]) -> dict[str, Figure]:
    """Of all episodes and by task; of a suite with groups of tasks the mean over tasks, and by group."""
    overall = info["overall"]
    averages = dict(overall["averages"])
    over_tasks = averages.pop("mean over tasks") | {"n_episodes": overall["n_episodes"]}
    figures = {"success": _rate(over_tasks if averages else overall)}
    figures |= {f"success/{name}": _rate(average) for name, average in averages.items()}
    return figures | {f"success/{part['task']}": _rate(part) for part in info["per_task"]}


def _controls(info: dict[str, Any]) -> dict[str, Figure]:
    """Of every blind control, of all tasks and by task."""
    figures = {name: part["pc_success"] for name, part in info["controls"].items()}
    for name, part in info["controls"].items():
        figures |= {f"{name}/{task}": rate["pc_success"] for task, rate in part["per_task"].items()}
    return {name: Figure(value=round(value, 1), unit="%") for name, value in figures.items()}


def _times(record: dict[str, Any]) -> dict[str, Figure]:
    """Wall-clock seconds of all sessions, and of the phases."""
    whole = sum(session["wall_s"] for session in record["sessions"])
    phases = {f"seconds/{phase['name']}": phase["wall_s"] for phase in record["phases"]}
    return {name: Figure(value=round(seconds), unit="s") for name, seconds in {"seconds": whole, **phases}.items()}


def _rate(part: dict[str, Any]) -> Figure:
    low, high = (round(end, 1) for end in part["pc_success_interval"])
    return Figure(value=round(part["pc_success"], 1), unit="%", interval=(low, high), n=part.get("n_episodes"))
