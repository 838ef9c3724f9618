"""A benchmark's results page: a title, the command that reproduces it, the conditions, and tables."""

from __future__ import annotations

import shlex
import sys
from datetime import datetime
from pathlib import Path

from agent.runs.run_folder import git_state


def head(title: str, benchmark: str, conditions: str) -> list[str]:
    """First lines of a document: what was measured, by which command, when, and at which commit."""
    command = shlex.join(["python", "-m", f"benchmarks.{benchmark}", *sys.argv[1:]])
    when = f"{datetime.now():%d %B %Y}"
    git = git_state()
    of = "" if git is None else f", at {git['commit'][:7]}{' with changes not committed' if git['dirty'] else ''}"
    return [f"# {title}", "", f"`{command}`, {when}{of}", "", conditions]


def finish(lines: list[str], out: Path | None) -> None:
    """Print the page, and write it to a file if one is given."""
    print("\n".join(lines))
    if out is not None:
        out.write_text("\n".join(lines) + "\n")
