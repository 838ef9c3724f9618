"""Results of the commands without failures."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.runs.run_folder import git_state
from benchmarks.campaign.commands import collect_args, command, improve_args, made_by, train_args
from benchmarks.campaign.tally import Work

KINDS = ("collect", "train", "improve")


@dataclass(frozen=True)
class Undisturbed:
    """One command, run once."""

    root: Path
    """Its folder."""
    made: dict[str, str]
    """{name: hash} of its results."""
    operations: dict[str, int]
    """{area: file operations} (driver.py)."""
    seconds: float


def args_of(kind: str, out: Path, work: Work) -> list[str]:
    """The command line that fills a folder."""
    if kind == "improve":
        return improve_args(out, folder_of(work, "train"))
    return collect_args(out) if kind == "collect" else train_args(out, folder_of(work, "collect"))


def folder_of(work: Work, kind: str) -> Path:
    """Where the undisturbed one is."""
    return work.root / "scratch" / f"undisturbed-{kind}" / "out"


def undisturbed(work: Work, kind: str) -> Undisturbed:
    """Run it, unless it was run with the same code before.

    Raises:
        RuntimeError: it fails although nobody disturbs it.
    """
    if begins_with := {"train": "collect", "improve": "train"}.get(kind):
        undisturbed(work, begins_with)

    def make() -> dict[str, Any]:
        note = work.scratch(f"undisturbed-{kind}") / "note"
        out = folder_of(work, kind)
        done = command(args_of(kind, out, work), ["--below", str(out), "--note", str(note)])
        if done.status != 0:
            raise RuntimeError(f"{kind} fails undisturbed, {done.said}")
        made = dict(made_by(out))
        return {"made": made, "operations": json.loads(note.read_text()), "seconds": done.seconds}

    return Undisturbed(root=folder_of(work, kind), **work.kept(f"undisturbed/{kind}", {"git": git_state()}, make))
