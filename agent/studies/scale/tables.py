"""A fitted grid as tables and as a picture.

- `scale.md`: every run's outcome, the gain of each doubling, and predictions of held-out runs
- `scale.png`: error and success over demonstrations, and the surface of success
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter
from numpy.typing import NDArray

from agent.evaluation.statistics import Proportion
from agent.studies.scale.effort import INTERVAL, Effort, Prediction
from agent.studies.scale.grid import Budget, Place
from agent.studies.scale.law import Cell, Fit, Surface

Runs = Sequence[tuple[Place, Cell]]


def tables(
    runs: Runs, fit: Fit, efforts: Sequence[Effort], point: Cell, predictions: Sequence[Prediction], budget: Budget
) -> Iterator[str]:
    """Lines of Markdown.

    Args:
        runs: those that were fitted.
        efforts: doublings from `point`.
        point: the best run of the grid.
    """
    yield "| width | acting parameters | demonstrations | experts | seed | action error | success % | interval |"
    yield "|---|---|---|---|---|---|---|---|"
    for place, cell in runs:
        low, high = Proportion(successes=cell.successes, episodes=cell.episodes).interval
        yield (
            f"| {place.width} | {cell.parameters / 1e6:.2f} M | {place.amount} | {place.experts} | {place.seed} "
            f"| {cell.error:.4f} | {100 * cell.successes / cell.episodes:.1f} | {100 * low:.0f} to {100 * high:.0f} |"
        )
    yield ""
    yield f"Each run: {budget.updates} updates. Demonstrations are per task; the error is on others that no run saw."
    yield from ("", "## The surfaces", "", *_surfaces(fit))
    yield from ("", "## The next unit of effort", "", *_efforts(efforts, point))
    if predictions:
        yield from ("", "## Runs that were held out", "", *_predictions(predictions))


def _surfaces(fit: Fit) -> Iterator[str]:
    n0, d0, x0 = fit.error.centre
    yield (
        "error = E + A n^-a + B d^-b and logit success = E - A n^-a - B d^-b, with "
        f"n = (parameters / {n0 / 1e6:.2f} M) (experts / {x0:.1f})^c and d = demonstrations / {d0:.0f}. "
        f"In brackets the middle 90 % of {len(fit.error_samples)} samples of the bootstrap."
    )
    yield ""
    yield "| surface | E | A | a | B | b | c |"
    yield "|---|---|---|---|---|---|---|"
    for name, surface, samples in (
        ("error", fit.error, fit.error_samples),
        ("success", fit.success, fit.success_samples),
    ):
        yield f"| {name} | {' | '.join(_with_interval(surface, samples, field) for field in _NUMBERS)} |"
    yield ""
    yield (
        f"Residuals of the runs: {100 * fit.error_std:.1f} % of the error; success varies as in "
        f"{fit.episodes_share:.2f} times as many independent episodes (at most 1)."
    )


_NUMBERS = ("floor", "parameters_part", "parameters_exponent", "data_part", "data_exponent", "experts_exponent")


def _with_interval(surface: Surface, samples: Sequence[Surface], name: str) -> str:
    low, high = np.percentile([getattr(sample, name) for sample in samples], INTERVAL)
    return f"{getattr(surface, name):.3g} ({low:.2g} to {high:.2g})"


def _efforts(efforts: Sequence[Effort], point: Cell) -> Iterator[str]:
    best = max(efforts, key=lambda effort: effort.best_share)
    yield (
        f"From {point.parameters / 1e6:.2f} M parameters, {point.demonstrations:.0f} demonstrations per task and "
        f"{point.experts:.0f} experts: double the **{best.what}**; {100 * best.best_share:.0f} % of sampled surfaces "
        "agree."
    )
    yield ""
    yield "| doubling | success, points | 90 % interval | error, times | 90 % interval | best for success | for error |"
    yield "|---|---|---|---|---|---|---|"
    for effort in efforts:
        (low, high), (below, above) = effort.success_interval, effort.error_interval
        yield (
            f"| {effort.what} | {effort.success_gain:+.1f} | {low:+.1f} to {high:+.1f} | {effort.error_factor:.3f} "
            f"| {below:.3f} to {above:.3f} | {100 * effort.best_share:.0f} % | {100 * effort.best_error_share:.0f} % |"
        )


def _predictions(predictions: Sequence[Prediction]) -> Iterator[str]:
    yield "| parameters | demonstrations | what | predicted | 90 % interval | measured | within |"
    yield "|---|---|---|---|---|---|---|"
    for found in predictions:
        cell = found.measured
        where = f"| {cell.parameters / 1e6:.2f} M | {cell.demonstrations:.0f} "
        (below, above), (low, high) = found.error_interval, found.success_interval
        inside = ("yes" if found.error_within else "no", "yes" if found.success_within else "no")
        yield where + f"| error | {found.error:.4f} | {below:.4f} to {above:.4f} | {cell.error:.4f} | {inside[0]} |"
        yield (
            where + f"| success % | {found.success:.1f} | {low:.1f} to {high:.1f} "
            f"| {found.measured_success:.1f} of {cell.episodes} | {inside[1]} |"
        )


def plot(runs: Runs, fit: Fit, predictions: Sequence[Prediction], path: Path) -> None:
    """Write the picture; where the grid varied experts, it shows the fewest."""
    fewest = min(cell.experts for _, cell in runs)
    cells = [cell for _, cell in runs if cell.experts == fewest]
    figure = Figure(figsize=(12.0, 3.8), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    held_out = [found.measured for found in predictions]
    _lines(left, cells, held_out, fit.error, fit.error_samples, lambda cell: cell.error)
    left.set_yscale("log")
    left.yaxis.set_major_formatter(ScalarFormatter())
    left.yaxis.set_minor_formatter(ScalarFormatter())
    left.set_ylabel("error of actions")
    _lines(middle, cells, held_out, fit.success, fit.success_samples, lambda cell: cell.successes / cell.episodes)
    middle.set_ylabel("success")
    middle.set_ylim(0, 1)
    left.legend(title="acting parameters", fontsize=8)
    all_cells = [*cells, *held_out]
    n, d = _span([c.parameters for c in all_cells]), _span([c.demonstrations for c in all_cells])
    success = 100 * fit.success(n[None, :], d[:, None], fewest)
    filled = right.contourf(n, d, success, levels=np.arange(0, 101, 10), cmap="viridis")
    right.scatter([c.parameters for c in cells], [c.demonstrations for c in cells], color="white", s=12, clip_on=False)
    unseen = [c.parameters for c in held_out], [c.demonstrations for c in held_out]
    right.scatter(*unseen, color="red", s=24, marker="x", clip_on=False)
    right.set(xscale="log", yscale="log", xlabel="acting parameters", ylabel="demonstrations per task")
    _label_amounts(right.yaxis, all_cells)
    figure.colorbar(filled, ax=right, label="success, %")
    figure.savefig(path, dpi=150)


def _lines(
    axes: Axes,
    cells: Sequence[Cell],
    held_out: Sequence[Cell],
    surface: Surface,
    samples: Sequence[Surface],
    value: Any,
) -> None:
    """The surface over demonstrations, a line and a band per size, with the measured runs."""
    all_cells = [*cells, *held_out]
    d = _span([c.demonstrations for c in all_cells])
    for index, size in enumerate(sorted({cell.parameters for cell in all_cells})):
        colour = f"C{index}"
        sampled = np.stack([other(size, d, all_cells[0].experts) for other in samples])
        axes.fill_between(d, *np.percentile(sampled, INTERVAL, axis=0), color=colour, alpha=0.15, linewidth=0)
        axes.plot(d, surface(size, d, all_cells[0].experts), color=colour, label=f"{size / 1e6:.2f} M", linewidth=1.4)
        for some, marker in ((cells, "o"), (held_out, "x")):
            of_size = [cell for cell in some if cell.parameters == size]
            axes.scatter([c.demonstrations for c in of_size], [value(c) for c in of_size], color=colour, marker=marker)
    axes.set_xscale("log")
    axes.set_xlabel("demonstrations per task")
    _label_amounts(axes.xaxis, all_cells)


def _span(values: Sequence[float]) -> NDArray[np.float64]:
    """From the smallest to the largest, evenly on a logarithmic scale."""
    return np.geomspace(min(values), max(values), 60)


def _label_amounts(axis: Axis, cells: Sequence[Cell]) -> None:
    """Ticks at the amounts of demonstrations."""
    axis.set_ticks(sorted({cell.demonstrations for cell in cells}))
    axis.set_major_formatter(ScalarFormatter())
    axis.set_minor_formatter(NullFormatter())
