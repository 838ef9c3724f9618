"""Figures in pages: written from entries by reference, and found where they have none.

A reference is `entry.figure` or `entry.figure.part`, where the part is interval, range or n.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

from benchmarks.ledger.entries import FOLDER, ROOT, Entry, EntryError, Figure

LIST = FOLDER.with_suffix(".md")
"""The page that lists all entries."""
_NUMBER = r"[-+]?\d[\d,]*(?:\.\d+)?(?:e-\d+)?"
_UNIT = r"(?: min \d+ s| h \d+ min| min| %| points| ms| s| MB| GB| M| times)?"
_REFERENCE = r"[a-z0-9_]+\.[^.|<>]+(?:\.(?:interval|range|n))?"
_INLINE = re.compile(rf"(?P<text>{_NUMBER}(?: to {_NUMBER})?{_UNIT})?<!-- (?P<reference>{_REFERENCE}) -->")
_COLUMNS = re.compile(
    r"^<!-- columns: (?P<columns>.*) -->\n\n(?P<head>\|.*\n\|[-|: ]+\n)(?P<rows>(?:\|.*(?:\n|\Z))*)", re.M
)
_CELL = re.compile(
    rf"(?P<before> *\**)(?P<text>{_NUMBER}(?: to {_NUMBER})?{_UNIT})(?P<after>\**)(?: \((?P<interval>.*)\))? *"
)
_RESULTS = re.compile(r"^<!-- results: (?P<names>[\w ]+) -->\n\n(?P<table>.*?)^<!-- end of results -->", re.M | re.S)
_CODE = re.compile(r"^```.*?^```|`[^`]*`", re.M | re.S)
_TARGET = re.compile(r"\]\([^)]*\)")
_COMMENT = re.compile(r"<!--.*?-->", re.S)
_NOT_MEASURED = re.compile(
    r"95 % interval|Python 3\.\d+|versions? [\d.]+(?: and [\d.]+)?|LLaMA 1 to 3\.2|Apache-2\.0|LeRobot \d[\d.]*"
)
"""Of README: conventions and versions."""
_WHOLE = re.compile(r"all\b|mean over tasks$")
"""First cells of rows whose figures are those of all episodes."""
_FIGURE = re.compile(
    rf"(?<![\w.,-])(?:{_NUMBER} ?(?:%|ms|s|min|minutes|seconds|h|hours|MB|GB|points|times)(?!\w)"
    rf"|{_NUMBER}(?: [a-z]+){{0,3}} per second|[-+]?\d[\d,]*\.\d+|\d+e-\d+)"
)


def pages() -> list[Path]:
    """The pages whose figures are written from entries."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs/results").glob("*.md"))]


def rendered(text: str, entries: Mapping[str, Entry], page: Path) -> str:
    """A page's text with every referenced figure as its entry has it.

    Raises:
        EntryError: a reference names no figure, or stands behind none.
    """
    text = _RESULTS.sub(partial(_results, entries, page), text)
    text = _COLUMNS.sub(partial(_columns, entries), text)
    return _INLINE.sub(partial(_inline, entries), text)


def without_reference(text: str) -> list[str]:
    """Figures of a text that no reference holds: numbers with a decimal point or a unit of measurement."""
    for pattern in (_CODE, _RESULTS, _COLUMNS, _INLINE, _COMMENT, _TARGET, _NOT_MEASURED):
        text = pattern.sub(" ", text)
    return [match.group() for match in _FIGURE.finditer(text)]


def references(text: str) -> Iterator[str]:
    """Names of the entries that a page refers to."""
    for match in _INLINE.finditer(text):
        yield match["reference"].partition(".")[0]
    for match in _COLUMNS.finditer(text):
        yield from (column.strip().partition(".")[0] for column in match["columns"].split("|") if "." in column)
    for match in _RESULTS.finditer(text):
        yield from match["names"].split()


def table(names: Iterable[str], entries: Mapping[str, Entry], page: Path) -> str:
    """Markdown of the results table: a row for each entry with a figure `success`.

    Raises:
        EntryError: there is no such entry, or it has no success.
    """
    rows = [
        "| benchmark | success | 95 % interval, episodes | parameters | time | simulator's labels | command |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in names:
        _, success, _ = _resolve(f"{name}.success", entries)
        entry = entries[name]
        interval = f"{success.texts('interval')[0]} of {success.n:,}" if success.interval and success.n else ""
        parts = (_preferred(entry, "parameters"), _preferred(entry, "seconds"))
        labels = {None: "", True: "in training", False: "none"}[entry.simulator_labels]
        link, ledger = (os.path.relpath(it, page.parent) for it in (ROOT / entry.page, LIST))
        command = f"[`{' '.join(entry.commands[-1].split()[:3])}`]({ledger}#{name})"
        cells = (f"[{entry.title}]({link})", f"**{success.texts()[0]}**", interval, *parts, labels, command)
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def listed(entries: Mapping[str, Entry]) -> str:
    """The page that lists all entries."""
    lines = [
        "# All measurements",
        "",
        "Every measurement that a page refers to, from its file in `docs/results/ledger/`; this page is written by",
        "`python -m benchmarks.ledger render`. Intervals are of 95 %, over episodes; a range goes from the lowest",
        "repetition to the highest.",
    ]
    for name, entry in entries.items():
        link = os.path.relpath(ROOT / entry.page, ROOT / "docs/results")
        seeds = f"; training seeds {', '.join(map(str, entry.training_seeds))}" if entry.training_seeds else ""
        episodes = "; episodes of seeds {:,} to {:,}".format(*entry.evaluation_seeds) if entry.evaluation_seeds else ""
        lines += [
            "",
            f"## {name}",
            "",
            f"[{entry.title}]({link}): {entry.date}, {entry.commit}, {entry.machine}{seeds}{episodes}.",
        ]
        lines += [entry.note] if entry.note else []
        lines += ["", "```", *entry.commands, "```", "", "| | measured | interval or range | n |", "|---|---|---|---|"]
        for key, figure in entry.figures.items():
            spread = next((figure.texts(part)[0] for part in ("interval", "range") if getattr(figure, part)), "")
            lines.append(f"| {key} | {figure.texts()[0]} | {spread} | {'' if figure.n is None else f'{figure.n:,}'} |")
    return "\n".join(lines) + "\n"


def _resolve(reference: str, entries: Mapping[str, Entry]) -> tuple[Entry, Figure, str]:
    name, figure, part = (*reference.split("."), "")[:3]
    if name not in entries:
        raise EntryError(f"<!-- {reference} -->: there is no entry {name!r}")
    if figure not in entries[name].figures:
        raise EntryError(f"<!-- {reference} -->: {name} has no {figure!r}; it has {', '.join(entries[name].figures)}")
    return entries[name], entries[name].figures[figure], part


def _preferred(entry: Entry, name: str) -> str:
    """A figure in whose text no line breaks between a number and its unit, so that its column stays narrow."""
    return re.sub(r"(\d) ([a-z])", "\\1\u00a0\\2", entry.figures[name].texts()[0]) if name in entry.figures else ""


def _as(written: str, figure: Figure, part: str) -> str:
    """A figure in the way in which it is written: with its unit or without."""
    texts = figure.texts(part)
    if written in texts:
        return written
    has_unit = not written[-1].isdigit()
    return next((text for text in texts if has_unit != text[-1].isdigit()), texts[0])


def _inline(entries: Mapping[str, Entry], match: re.Match[str]) -> str:
    reference, written = match["reference"], match["text"]
    _, figure, part = _resolve(reference, entries)
    if not written:
        raise EntryError(f"<!-- {reference} --> stands behind no figure")
    return f"{_as(written, figure, part)}<!-- {reference} -->"


def _columns(entries: Mapping[str, Entry], match: re.Match[str]) -> str:
    columns = [column.strip() for column in match["columns"].split("|")]
    rows = "".join(_row(entries, columns, row) for row in match["rows"].splitlines(keepends=True))
    return f"<!-- columns: {match['columns']} -->\n\n{match['head']}{rows}"


def _row(entries: Mapping[str, Entry], columns: list[str], row: str) -> str:
    before, label, *cells = row.rstrip("\n").removesuffix("|").split("|")
    if len(cells) != len(columns):
        raise EntryError(f"{len(columns)} columns are named, and a row has {len(cells)}: {row.strip()}")
    name = label.strip(" *`")
    cells = [_cell(entries, column, name, cell) for column, cell in zip(columns, cells, strict=True)]
    return "|".join((before, label, *cells)) + "|" + row[len(row.rstrip("\n")) :]


def _cell(entries: Mapping[str, Entry], column: str, label: str, cell: str) -> str:
    if column == "-" or not cell.strip(" -"):
        return cell
    reference = column.replace("/{}", "" if _WHOLE.match(label) else f"/{label}")
    _, figure, part = _resolve(reference, entries)
    written = _CELL.fullmatch(cell)
    if written is None:
        raise EntryError(f"<!-- columns: {column} -->: {cell.strip()!r} of the row {label!r} is no figure")
    interval = f" ({_as(written['interval'], figure, 'interval')})" if written["interval"] else ""
    return f"{written['before']}{_as(written['text'], figure, part)}{written['after']}{interval} "


def _results(entries: Mapping[str, Entry], page: Path, match: re.Match[str]) -> str:
    return (
        f"<!-- results: {match['names']} -->\n\n{table(match['names'].split(), entries, page)}\n<!-- end of results -->"
    )
