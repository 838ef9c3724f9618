"""Learning curves of several runs that differ only in seed, as a plot with intervals and as a table.

    python -m benchmarks.curves runs/ppo0 runs/ppo1 runs/ppo2 --out docs/results/ppo_three_tasks.png

Thick lines are means over the runs, bands their 95 % intervals by Student's t over the runs (so those of three runs are
wide), thin lines the single runs. The bands do not include the uncertainty of each point within a run.

Shape letters: R runs, S steps that all runs have.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import t as student

from agent.report.curves import read_curves
from agent.runs.run_folder import RunFolder

COLOURS = ("#1f6feb", "#d1242f", "#1a7f37", "#8250df")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which runs, and which of their curves."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folders of two runs or more."""
    out: Path
    """File of the plot."""
    tags: tuple[str, ...] = ("practice/success", "evaluation/success")
    """TensorBoard tags of rates between 0 and 1."""
    every: int = 10
    """Steps between two columns of the table."""


@dataclass(frozen=True, kw_only=True)
class Band:
    """One curve over several runs."""

    tag: str
    steps: NDArray[np.int64]
    """[S]"""
    values: NDArray[np.float64]
    """[R, S]"""

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean over the runs, [S]."""
        return self.values.mean(0)

    @property
    def half_width(self) -> NDArray[np.float64]:
        """Half-width of the 95 % interval of the mean, [S]."""
        count = len(self.values)
        return student.ppf(0.975, count - 1) * self.values.std(0, ddof=1) / np.sqrt(count)


def band_of(runs: Sequence[Path], tag: str) -> Band:
    """The band over the steps that all runs have.

    Raises:
        ValueError: fewer than two runs, or one without such a curve.
    """
    if len(runs) < 2:
        raise ValueError(f"an interval over runs needs at least two, got {len(runs)}")
    found: list[dict[int, float]] = []
    for run in runs:
        curves = {curve.tag: curve for curve in read_curves(RunFolder(run).tensorboard)}
        if tag not in curves:
            raise ValueError(f"{run} has no curve {tag!r}; curves: {', '.join(curves)}")
        found.append(dict(zip(curves[tag].steps, curves[tag].values, strict=True)))
    steps = sorted(set.intersection(*(set(values) for values in found)))
    return Band(tag=tag, steps=np.array(steps), values=np.array([[values[s] for s in steps] for values in found]))


def draw(bands: Sequence[Band]) -> Figure:
    """Plot all curves in one figure."""
    figure = Figure(figsize=(8.0, 3.6), layout="constrained")
    axes = figure.subplots()
    for band, colour in zip(bands, COLOURS, strict=False):
        axes.plot(band.steps, 100 * band.values.T, color=colour, linewidth=0.6, alpha=0.6)
        axes.plot(band.steps, 100 * band.mean, color=colour, linewidth=2.0, label=band.tag)
        low, high = (100 * np.clip(band.mean + sign * band.half_width, 0.0, 1.0) for sign in (-1, 1))
        axes.fill_between(band.steps, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.set(xlabel="iteration", ylabel="success, %", ylim=(0, 100))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", linewidth=0.4)
    axes.legend(loc="lower right", frameon=False)
    return figure


def table(bands: Sequence[Band], every: int) -> Iterator[str]:
    """Means and half-widths in %, at the first step and at regular intervals; empty where a curve has no point."""
    shown = sorted({int(s) for band in bands for s in band.steps if s % every == 0 or s == band.steps[0]})
    yield f"| iteration | {' | '.join(map(str, shown))} |"
    yield "|---" * (len(shown) + 1) + "|"
    for band in bands:
        texts = {
            int(step): f"{100 * mean:.0f} ± {100 * half:.0f}"
            for step, mean, half in zip(band.steps, band.mean, band.half_width, strict=True)
        }
        yield f"| {band.tag} | {' | '.join(texts.get(step, '') for step in shown)} |"


def main() -> None:
    """Run the command."""
    options = tyro.cli(Options, description=__doc__)
    bands = [band_of(options.runs, tag) for tag in options.tags]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    draw(bands).savefig(options.out, dpi=150)
    print("\n".join(table(bands, options.every)))


if __name__ == "__main__":
    main()
