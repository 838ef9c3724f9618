"""An entry of the ledger: its fields, and how it is read and written."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs/results/ledger"
UNITS = ("%", "points", "s", "ms", "MB", "GB", "M", "times", "/s", "")
"""M: million parameters; /s: per second, of what the figure's name says; "" for probabilities and counts."""


class EntryError(ValueError):
    """An entry is malformed."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One number, as it is published."""

    value: float
    """As rounded for publication."""
    unit: str
    """One of UNITS."""
    interval: tuple[float, float] | None = None
    """95 % interval."""
    range: tuple[float, float] | None = None
    """Smallest and largest of repeated measurements, of which `value` is the median."""
    n: int | None = None
    """Episodes, or repeats."""

    def check(self) -> None:
        """
        Raises:
            EntryError: the unit is unknown, or an interval does not hold the value.
        """
        if self.unit not in UNITS:
            raise EntryError(f"unit {self.unit!r} is none of {UNITS}")
        for name in ("interval", "range"):
            ends = getattr(self, name)
            if ends is not None and not (len(ends) == 2 and ends[0] <= self.value <= ends[1]):
                raise EntryError(f"{name} {ends} does not hold {self.value}")
        if self.n is not None and self.n < 1:
            raise EntryError(f"n is {self.n}")

    def texts(self, part: str = "") -> tuple[str, ...]:
        """How it may be written: the preferred way first.

        Args:
            part: "" for the value, or "interval", "range", "n".

        Raises:
            EntryError: the figure has no such part.
        """
        if part not in ("", "interval", "range", "n") or (part and getattr(self, part) is None):
            raise EntryError(f"it has no {part!r}")
        if part == "n":
            return (f"{self.n:,}",)
        numbers = getattr(self, part) if part else (self.value,)
        signs = ("+", "") if self.unit == "points" else ("",)  # a change is written with its sign
        texts = [
            text for sign in signs for text in _with_unit(" to ".join(number(it, sign) for it in numbers), self.unit)
        ]
        return (*(_duration(self) if not part else ()), *texts)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A measurement: what ran, of which code, when and where, and what came out."""

    title: str
    """What was measured, as the first cell of a table's row."""
    page: str
    """The page that describes it, a path from the repository's root."""
    commands: tuple[str, ...]
    """What makes it again, by today's names of options. The last one is the one that measures."""
    commit: str
    """Of the code that ran: 7 or more digits."""
    date: str
    """YYYY-MM-DD."""
    machine: str
    """Processor, cores, GPU, and what else ran on it."""
    training_seeds: tuple[int, ...] = ()
    """Of the trained policies; empty where nothing was trained."""
    evaluation_seeds: tuple[int, int] | None = None
    """First and last seed of the episodes of each task; None without evaluation."""
    simulator_labels: bool | None = None
    """Whether positions from the simulator's state were labels during training; None where nothing was trained."""
    note: str = ""
    """What a reader must know besides: options of then, what could not be repeated."""
    figures: Mapping[str, Figure] = field(default_factory=dict)
    """By name; `success` is that of all episodes, `success/reach` that of one task."""

    def check(self) -> None:
        """
        Raises:
            EntryError: a field is malformed, or the page does not exist.
        """
        if not re.fullmatch(r"[0-9a-f]{7,40}", self.commit):
            raise EntryError(f"commit {self.commit!r} is not a commit's number")
        date.fromisoformat(self.date)
        if not (ROOT / self.page).is_file():
            raise EntryError(f"page {self.page!r} does not exist")
        if not (self.title and self.machine and self.commands and self.figures):
            raise EntryError("title, machine, commands and figures are needed")
        for name, figure in self.figures.items():
            if not re.fullmatch(r"[^.|<>]+", name):
                raise EntryError(f"a figure's name has none of . | < >, unlike {name!r}")
            try:
                figure.check()
            except EntryError as error:
                raise EntryError(f"{name}: {error}") from None


def number(value: float, sign: str = "") -> str:
    """As published: 1,300 and 0.028 and 3e-7, and with the sign "+" +2.3."""
    if value == 0 or abs(value) >= 1e-4:
        return f"{value:{sign},}"
    return re.sub(r"e-0*", "e-", f"{value:{sign}.0e}")


def _with_unit(text: str, unit: str) -> tuple[str, ...]:
    """With its unit and without, as in an enumeration; 1,000 as 1000, 100.0 as 100, 0.5 as 0.50 and 0.500."""
    texts = [f"{text} {unit}", text] if unit not in ("", "/s") else [text]
    texts += [text.replace(",", "") for text in texts]
    decimals = ((r"\.0(?!\d)", ""), (r"(\.\d+)", r"\g<1>0"), (r"(\.\d+)", r"\g<1>00"))
    texts += [re.sub(*change, text) for change in decimals for text in texts]
    return tuple(dict.fromkeys(texts))


def _duration(figure: Figure) -> tuple[str, ...]:
    """Seconds as a clock says them: 8 min 27 s."""
    if figure.unit != "s" or figure.value < 120:
        return ()
    minutes, seconds = divmod(round(figure.value), 60)
    hours, rest = divmod(minutes, 60)
    exact = f"{minutes} min" + (f" {seconds} s" if seconds else "")
    return (f"{hours} h {rest} min", exact) if hours and not seconds else (exact,)


def load(folder: Path = FOLDER) -> dict[str, Entry]:
    """All entries by name.

    Raises:
        EntryError: one is malformed; the message names its file.
    """
    found = {}
    for path in sorted(folder.glob("*.json")):
        try:
            found[path.stem] = parse(json.loads(path.read_text()))
        except (ValueError, TypeError, KeyError) as error:
            raise EntryError(f"{path.name}: {error}") from error
    return found


def parse(content: dict[str, Any]) -> Entry:
    """An entry from its file's content.

    Raises:
        EntryError: see Entry.check.
        TypeError: a field is missing or unknown.
    """
    figures = {
        name: Figure(**{key: _frozen(part) for key, part in it.items()}) for name, it in content["figures"].items()
    }
    entry = Entry(**{key: _frozen(part) for key, part in content.items() if key != "figures"}, figures=figures)
    entry.check()
    return entry


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def write(name: str, entry: Entry, folder: Path = FOLDER) -> Path:
    """Write an entry's file, one line per field and per figure; returns its path.

    Raises:
        EntryError: see Entry.check.
    """
    entry.check()
    lines = [f"  {json.dumps(key)}: {json.dumps(part)}," for key, part in _given(entry).items() if key != "figures"]
    figures = [f"    {json.dumps(key)}: {json.dumps(_given(figure))}" for key, figure in entry.figures.items()]
    path = folder / f"{name}.json"
    path.write_text("\n".join(["{", *lines, '  "figures": {', ",\n".join(figures), "  }", "}"]) + "\n")
    return path


def _given(it: Entry | Figure) -> dict[str, Any]:
    """The fields that are not empty, by name."""
    given = {f.name: getattr(it, f.name) for f in fields(it)}
    required = {"value", "unit"}
    return {name: part for name, part in given.items() if name in required or part not in (None, (), "")}
