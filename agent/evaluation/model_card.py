"""From eval_info.json to the model card of the policy that was evaluated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vla_model.weights.checkpoint import load_shape
from vla_model.weights.model_card import Rate, Results, write_card


def write_results(folder: Path, info: Mapping[str, Any]) -> None:
    """Write an evaluation into the model card of a policy's folder.

    Args:
        folder: of the policy.
        info: content of eval_info.json.

    Raises:
        UserError: the folder is not a policy's.
    """
    folder, config, processor = load_shape(folder)
    write_card(folder, config, processor, results_of(info))


def results_of(info: Mapping[str, Any]) -> Results:
    """The numbers of the card: all episodes, averages, blind controls, and each task of each variation."""
    protocol = info["protocol"]
    first, last = protocol["seeds"]
    steps = protocol["n_action_steps"]
    variations = ", ".join(protocol["variations"])
    return Results(
        dataset=", ".join(info["per_group"]),
        protocol=(
            f"Suite {', '.join(protocol['suites'])}, variation {variations}, held-out episodes of seeds {first} to "
            f"{last}; {'all' if steps is None else steps} actions of each chunk executed; success "
            f"{protocol['success']}; {protocol['interval']}, of averages {protocol['interval_of_averages']}."
        ),
        overall=_rate("all episodes", info["overall"], info["overall"]["n_episodes"]),
        rows=tuple(_rows(info)),
    )


def _rows(info: Mapping[str, Any]) -> Iterator[Rate]:
    for name, average in info["overall"]["averages"].items():
        yield _rate(name, average)
    for name, control in info["controls"].items():
        yield _rate(f"blind control: {name}", control, control["n_episodes"])
    several = len(info["per_group"]) > 1
    for entry in info["per_task"]:
        name = f"{entry['task_group']}: {entry['task']}" if several else entry["task"]
        yield _rate(name, entry, entry["n_episodes"])


def _rate(name: str, part: Mapping[str, Any], episodes: int | None = None) -> Rate:
    low, high = part["pc_success_interval"]
    return Rate(name=name, percent=part["pc_success"], interval=(low, high), episodes=episodes)
