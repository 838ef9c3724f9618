"""Learning curves of a run: TensorBoard's scalars as small SVG pictures with the page's colours.

matplotlib has no CSS variables, so placeholder colours are replaced by the page's variables: one picture serves a light
and a dark page.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_POINTS = 300
"""A curve with more is subsampled."""
INK, _RULE, ACCENT = "#010203", "#010204", "#010205"
_CSS = {INK: "var(--muted)", _RULE: "var(--rule)", ACCENT: "var(--accent)"}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "llamarm",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.edgecolor": _RULE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": _RULE,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
}


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One scalar over a run's steps."""

    tag: str
    steps: tuple[int, ...]
    values: tuple[float, ...]

    @property
    def group(self) -> str:
        return self.tag.partition("/")[0] if "/" in self.tag else "other"

    @property
    def name(self) -> str:
        return self.tag.partition("/")[2] or self.tag


def read_curves(folder: Path) -> list[Curve]:
    """Every scalar of the event files in a folder, by tag; empty if the folder does not exist."""
    if not folder.exists():
        return []

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    curves = []
    for tag in sorted(events.Tags()["scalars"]):
        # A resumed run repeats the steps after its checkpoint: the later value counts.
        points = {event.step: event.value for event in events.Scalars(tag) if np.isfinite(event.value)}
        if points:
            steps = sorted(points)
            curves.append(Curve(tag=tag, steps=tuple(steps), values=tuple(points[step] for step in steps)))
    return curves


def by_group(curves: Sequence[Curve]) -> dict[str, list[Curve]]:
    """Curves by the part of their tag before the slash: evaluation first, then losses, then the rest."""

    def rank(curve: Curve) -> tuple[bool, bool, str]:
        return curve.group != "evaluation", curve.group != "loss", curve.group

    return {group: list(members) for (*_, group), members in groupby(sorted(curves, key=rank), rank)}


def draw_curve(curve: Curve) -> str:
    """An <svg> to put into a page that defines --muted, --rule and --accent."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    keep = np.unique(np.linspace(0, len(curve.steps) - 1, MAX_POINTS).round().astype(int))
    steps, values = np.array(curve.steps)[keep], np.array(curve.values)[keep]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.6, 1.9), layout="constrained")
        axes = figure.add_subplot()
        axes.plot(steps, values, color=ACCENT, linewidth=1.6, marker="o" if len(steps) < 12 else "", markersize=3)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.spines["left"].set_visible(False)
        axes.margins(x=0.02, y=0.08)
        return as_svg(figure, curve.tag)


def as_svg(figure: Figure, label: str) -> str:
    """A figure in this file's style as an <svg> in the page's colours."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True)
    return _for_a_page(buffer.getvalue(), label)


def _for_a_page(svg: str, label: str) -> str:
    """Without the attributes of a stand-alone file, and in the page's colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' (xmlns(:xlink)?|width|height|version)="[^"]*"', "", svg, count=5)
    svg = re.sub(r' id="(figure|axes|patch|line2d|matplotlib|text|xtick|ytick)[^"]*"', "", svg)
    svg = re.sub(r"font-family: [^;]*;", "", svg)
    for colour, variable in _CSS.items():
        svg = svg.replace(colour, variable)
    return svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(label)}"', 1)
