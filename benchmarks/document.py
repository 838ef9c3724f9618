"""What a benchmark writes: a title, the command that makes it again, what was measured where, and tables."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path


def head(title: str, benchmark: str, conditions: str) -> list[str]:
    """First lines of a document."""
    command = shlex.join(["python", "-m", f"benchmarks.{benchmark}", *sys.argv[1:]])
    return [f"# {title}", "", f"`{command}`", "", conditions]


def finish(lines: list[str], out: Path | None) -> None:
    """Print the whole, and write it to a file if there is one."""
    print("\n".join(lines))
    if out is not None:
        out.write_text("\n".join(lines) + "\n")
