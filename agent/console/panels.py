"""The page's panels: HTML of a drive's status, outcome, expert usage and interventions.

Shape letters: E experts.
"""

from __future__ import annotations

import html
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from agent.console.drive_session import Status
from agent.robot.safety import Intervention

COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#888888", "#222255")
"""Distinguishable colours of curves and bars (Paul Tol's "bright", and two more)."""
_GOOD, _WARN, _BAD, _CALM = "#2f9e44", "#e8890c", "#e03131", "#868e96"
_HEADLINES = {
    "idle": ("At rest", _CALM),
    "waiting": ("Waiting for the policy", _WARN),
    "judging": ("Did it succeed?", _WARN),
}
_SHOWN_INTERVENTIONS = 8


def status_html(status: Status, control_dt_s: float, page_rate_hz: float) -> str:
    """One headline and the figures of the newest period."""
    headline, colour = _headline(status)
    rows = []
    if (period := status.period) is not None:
        answer = period.answer
        rows = [
            ("time", f"{period.time_s:.1f} s, period {period.number}"),
            ("delay of the period", f"{1000 * period.late_s:.1f} of {1000 * control_dt_s:.0f} ms"),
            ("inference", f"{1000 * answer.inference_s:.1f} ms" if answer is not None else "-"),
            ("action", f"{period.moves_since:.0f} of {answer.chunk.shape[1]}" if answer is not None else "-"),
        ]
    rows.append(("page", f"{page_rate_hz:.0f} updates/s"))
    lines = [f'<div class="llamarm-state" style="{_BADGE}background:{colour}">{html.escape(headline)}</div>']
    if status.trouble is not None:
        lines.append(f'<div style="color:{_BAD};margin:4px 0">{html.escape(status.trouble)}</div>')
    return _box("".join(lines) + _table(rows))


def outcome_html(status: Status) -> str:
    """The result of the last drive."""
    if status.outcome is None:
        return _box(f'<span style="color:{_CALM}">No drive yet.</span>')
    lines = [html.escape(line) for line in status.outcome.lines()]
    if status.recorded is not None:
        lines.append(f"recorded in {html.escape(status.recorded)}")
    return _box("<br>".join(lines))


def usage_html(usage: NDArray[np.float32] | None) -> str:
    """Bars of the experts' shares, [layers, E], one row per layer."""
    if usage is None:
        return _box(f'<span style="color:{_CALM}">The policy reports no experts.</span>')
    rows = []
    for layer, shares in enumerate(usage, 1):
        parts = "".join(
            f'<div style="width:{100 * share:.1f}%;background:{COLOURS[i % len(COLOURS)]};overflow:hidden;'
            f'text-align:center">{100 * share:.0f}</div>'
            for i, share in enumerate(shares.tolist())
        )
        rows.append(
            f'<div style="display:flex;align-items:center;margin:3px 0"><span style="width:52px">layer {layer}</span>'
            f'<div style="display:flex;flex:1;height:18px;line-height:18px;color:white;border-radius:3px;'
            f'overflow:hidden">{parts}</div></div>'
        )
    names = " ".join(
        f'<span style="color:{COLOURS[i % len(COLOURS)]}">&#9632;</span> expert {i + 1}' for i in range(usage.shape[1])
    )
    return _box("".join(rows) + f'<div style="margin-top:2px">{names}, share in %</div>')


def safety_html(interventions: Iterable[Intervention]) -> str:
    """Interventions of the safety filter: counts, and the newest in detail."""
    interventions = list(interventions)
    if not interventions:
        return _box(f'<span style="color:{_GOOD}">&#9679;</span> No interventions.')
    reasons = [i.reason for i in interventions]
    counts = ", ".join(f"{html.escape(reason)} {reasons.count(reason)}" for reason in dict.fromkeys(reasons))
    rows = [
        (f"{i.time_s:.1f} s", f"<b>{html.escape(i.reason)}</b> {html.escape(i.detail)}")
        for i in reversed(interventions[-_SHOWN_INTERVENTIONS:])
    ]
    return _box(f'<span style="color:{_WARN}">&#9679;</span> {counts}' + _table(rows, escaped=True))


def _headline(status: Status) -> tuple[str, str]:
    if status.state == "driving" and (period := status.period) is not None:
        if period.holding is not None:
            return f"Holding: {period.holding}", _WARN
        return ("You drive", "#1971c2") if period.by_hand else ("The policy drives", _GOOD)
    if status.state == "idle" and status.outcome is not None:
        result = status.outcome.result
        return result[0].upper() + result[1:], _GOOD if status.outcome.success else _BAD
    return _HEADLINES.get(status.state, _HEADLINES["waiting"])


_BADGE = "color:white;border-radius:4px;padding:6px 10px;font-weight:600;font-size:15px;"


def _box(content: str) -> str:
    return f'<div style="padding:0 12px 8px;font-size:13px;line-height:1.45">{content}</div>'


def _table(rows: Iterable[tuple[str, str]], escaped: bool = False) -> str:
    cells = "".join(
        f'<tr><td style="color:{_CALM};padding-right:10px;white-space:nowrap;vertical-align:top">{html.escape(name)}'
        f"</td><td>{value if escaped else html.escape(value)}</td></tr>"
        for name, value in rows
    )
    return f'<table style="border-spacing:0;margin-top:6px">{cells}</table>'
