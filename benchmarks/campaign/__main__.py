"""A reliability campaign: lost, duplicated and wrong results under failures of workers, drivers, disks and clients.

    python -m benchmarks.campaign --out docs/results/reliability.md
    python -m benchmarks.campaign --size 0.01 --parts episodes kills

Everything runs on this machine, servers on 127.0.0.1. What is done is kept in --work, a file for each piece; a campaign
that was stopped or killed goes on with the first piece that is not there. The exit status is 1 if anything was lost,
came twice or is wrong.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro

from agent.runs.run_folder import machine
from benchmarks.campaign import disk, episodes, kills, serve, together
from benchmarks.campaign.tally import Tally, Work
from benchmarks.document import finish, head

Part = Literal["episodes", "messages", "kills", "disk", "together"]
PARTS: dict[Part, tuple[str, Callable[[Work, float], Tally]]] = {
    "episodes": (
        "episodes through Ray workers of which one is killed, stopped or starved every few seconds",
        episodes.run,
    ),
    "messages": ("hostile messages to the server, its memory and its right answers watched", serve.run),
    "kills": ("the driver killed with SIGKILL in collect, train and improve, and resumed", kills.run),
    "disk": ("a disk that fills in collect, train, improve, eval and a drive's recording", disk.run),
    "together": ("two commands at once in one folder", together.run),
}
"""{name: (what is done, who does it)}"""
_HEADLINES = ("episodes", "messages", "kills in", "disks filled", "tries", "results compared", "right answers")
_MOST_NOTES = 40


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to try, and how much of it."""

    size: float = 1.0
    """1 for 10,000 episodes, 1,000,000 messages, 100 kills, 25 full disks and 100 pairs of commands."""
    parts: tuple[Part, ...] = tuple(PARTS)
    """Parts of the campaign to run."""
    work: Path = Path("runs/campaign")
    """Folder of finished work, from which the campaign resumes."""
    out: Path | None = None
    """File to which the table is written, in addition to the screen."""


def table(tallies: dict[Part, Tally]) -> list[str]:
    """One row for each part."""
    lines = ["| part | what was done | counts | lost | twice | wrong |", "|---|---|---|---|---|---|"]
    for part, tally in tallies.items():
        counts = ", ".join(f"{n:,} {name}" for name, n in sorted(tally.counts.items()) if name.startswith(_HEADLINES))
        lines.append(f"| {part} | {PARTS[part][0]} | {counts} | {tally.lost} | {tally.twice} | {tally.wrong} |")
    return lines


def details(part: Part, tally: Tally) -> list[str]:
    """Every count, and what was noted of faults."""
    lines = ["", f"## {part}: {PARTS[part][0]}", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {count:,} |" for name, count in sorted(tally.counts.items())]
    lines += ["", *(f"- {note}" for note in tally.notes[:_MOST_NOTES])]
    if len(tally.notes) > _MOST_NOTES:
        lines.append(f"- and {len(tally.notes) - _MOST_NOTES} more, in the files of --work")
    return lines


def document(tallies: dict[Part, Tally], work: Work) -> list[str]:
    """The whole."""
    here = machine()
    how = (
        f"On {here['cores']} cores of {here['cpu']} with {here['memory_gb']:.0f} GB, torch {torch.__version__}. "
        f"Pieces were done with {', '.join(work.commits())}. "
        "Lost: an undisturbed run has it, and it is not there. Twice: it is there again. Wrong: it differs from the "
        "undisturbed run's in a bit, or a command or the server did what it must not."
    )
    lines = [*head("Reliability", "campaign", how), "", *table(tallies)]
    for part, tally in tallies.items():
        lines += details(part, tally)
    return lines


def main(options: Options) -> int:
    """Run what is not done, print and write; the exit status."""
    work, tallies = Work(options.work.resolve()), {}
    for part in options.parts:
        tallies[part] = PARTS[part][1](work, options.size)
        print("\n".join(table({part: tallies[part]})), file=sys.stderr, flush=True)
    finish(document(tallies, work), options.out)
    return status(tuple(tallies.values()))


def status(tallies: Sequence[Tally]) -> int:
    """1 if anything was lost, came twice or is wrong."""
    return int(any(tally.faults for tally in tallies))


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options, description=__doc__, config=(tyro.conf.AvoidSubcommands,))))
