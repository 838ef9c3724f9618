"""A study of experts as tables and as a picture, both from experts.json.

- `experts.md`: usage by task and by phase, mutual information of both with the expert, success without each expert
- `experts.png`: the same as coloured tables
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

_SIGNIFICANT = 0.05


def tables(found: Mapping[str, Any]) -> Iterator[str]:
    """Lines of Markdown."""
    num_layers, num_experts = np.shape(next(iter(found["usage"]["by_task"].values())))
    for what, shares in (("task", found["usage"]["by_task"]), ("phase", found["usage"]["by_phase"])):
        yield from (f"## Usage by {what}", "", "Share of the router's choices in percent, over all decisions.", "")
        yield from _usage(what, shares, num_layers, num_experts)
        yield ""
    yield from _information(found["bits"], num_layers, num_experts)
    if found["ablations"]:
        yield from ("", "## Without an expert", "", _ABLATION_NOTE, "")
        yield from _ablations(found)
    yield from ("", "## Usage by task and phase", "")
    by_both = found["usage"]["by_task_and_phase"]
    flat = {f"{task}, {phase}": shares for task, phases in by_both.items() for phase, shares in phases.items()}
    yield from _usage("task and phase", flat, num_layers, num_experts)


_ABLATION_NOTE = (
    "The same episodes with one expert left out, its router choosing among the others: the change of success in "
    "points, with its 95 % interval (Bonett & Price 2012), and McNemar's exact p, adjusted by Holm's method for as "
    "many tests as there are experts. By task: the change alone; * marks p < 0.05, not adjusted."
)


def _usage(what: str, shares: Mapping[str, Any], num_layers: int, num_experts: int) -> Iterator[str]:
    heads = [f"{layer}.{expert}" for layer in range(1, num_layers + 1) for expert in range(1, num_experts + 1)]
    yield f"| {what} | {' | '.join(heads)} |"
    yield "|---|" + "---|" * len(heads)
    for name, values in shares.items():
        yield f"| {name} | {' | '.join(f'{100 * share:.0f}' for share in np.ravel(values))} |"


def _information(bits: Mapping[str, Sequence[float]], num_layers: int, num_experts: int) -> Iterator[str]:
    yield "Mutual information of the choice of an expert with task and phase, in bits"
    yield f"(of log2 {num_experts} = {np.log2(num_experts):.2f}, which k experts for each token cannot reach):"
    yield ""
    yield f"| about | {' | '.join(f'layer {layer}' for layer in range(1, num_layers + 1))} |"
    yield "|---|" + "---|" * num_layers
    for about, key in (("the task", "task"), ("the phase, given the task", "phase_given_task")):
        yield f"| {about} | {' | '.join(f'{value:.3f}' for value in bits[key])} |"


def _ablations(found: Mapping[str, Any]) -> Iterator[str]:
    tasks = found["tasks"]
    whole = found["success"]["all"]
    yield f"| without | success % | change | interval | won, lost | p | {' | '.join(tasks)} |"
    yield "|---|---|---|---|---|---|" + "---|" * len(tasks)
    base = [f"{found['success'][task]['pc_success']:.0f} %" for task in tasks]
    yield f"| none | {whole['pc_success']:.1f} of {whole['n_episodes']} | | | | | {' | '.join(base)} |"
    for row in found["ablations"]:
        all_, per_task = row["all"], row["per_task"]
        low, high = all_["difference_interval"]
        yield (
            f"| {row['layer']}.{row['expert']} | {all_['pc_success']:.1f} | {all_['difference']:+.1f} "
            f"| {low:+.1f} to {high:+.1f} | {all_['won']}, {all_['lost']} | {all_['p_value_holm']:.2g} "
            f"| {' | '.join(_change(per_task[task]) for task in tasks)} |"
        )


def _change(comparison: Mapping[str, Any]) -> str:
    return f"{comparison['difference']:+.0f}" + ("*" if comparison["p_value"] < _SIGNIFICANT else "")


def plot(found: Mapping[str, Any], path: Path) -> None:
    """Write the picture."""
    by_task, by_phase = found["usage"]["by_task"], found["usage"]["by_phase"]
    num_layers, num_experts = np.shape(next(iter(by_task.values())))
    heights = [len(by_task), len(by_phase)] + ([len(by_task) + 1] if found["ablations"] else [])
    figure = Figure(
        figsize=(2.6 + 2.6 * num_layers, 1.5 + 0.34 * (sum(heights) + 3 * len(heights))), layout="constrained"
    )
    grid = figure.add_gridspec(len(heights), num_layers, height_ratios=heights)
    experts = [str(expert + 1) for expert in range(num_experts)]
    for layer in range(num_layers):
        for row, shares in enumerate((by_task, by_phase)):
            axes = figure.add_subplot(grid[row, layer])
            values = 100 * np.array([shares[name][layer] for name in shares])
            _table(axes, values, list(shares) if layer == 0 else None, experts, "Oranges", (0.0, 100.0), "{:.0f}")
            if row == 0:
                axes.set_title(f"layer {layer + 1}: usage in % by task", fontsize=9)
            else:
                axes.set_title("usage in % by phase", fontsize=9)
        if found["ablations"]:
            axes = figure.add_subplot(grid[2, layer])
            rows = [row for row in found["ablations"] if row["layer"] == layer + 1]
            columns = [[row["per_task"][task]["difference"] for task in found["tasks"]] for row in rows]
            values = np.array(
                [[*column, row["all"]["difference"]] for column, row in zip(columns, rows, strict=True)]
            ).T
            names = [*found["tasks"], "all"] if layer == 0 else None
            _table(axes, values, names, experts, "RdBu", (-100.0, 100.0), "{:+.0f}")
            axes.set_title("success without it: change in points", fontsize=9)
            axes.set_xlabel("expert", fontsize=8)
    figure.savefig(path, dpi=150)


def _table(
    axes: Axes,
    values: NDArray[np.float64],
    rows: list[str] | None,
    columns: list[str],
    colours: str,
    limits: tuple[float, float],
    text: str,
) -> None:
    """A coloured table with its numbers written in."""
    axes.imshow(values, cmap=colours, vmin=limits[0], vmax=limits[1], aspect="auto")
    axes.set_xticks(range(len(columns)), columns, fontsize=8)
    axes.set_yticks(range(len(values)), rows if rows is not None else [], fontsize=8) if rows else axes.set_yticks([])
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    for (i, j), value in np.ndenumerate(values):
        strong = abs(value) > 0.6 * limits[1]
        axes.text(j, i, text.format(value), ha="center", va="center", fontsize=8, color="white" if strong else "black")
