"""A command's first line, what it is about to do, and its last ones, what to do next.

Both are written to standard error: standard output has results only.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from agent.runs.run_folder import RunFolder
from vla_model.files.folders import read_json


def say_ahead(command: str, text: str) -> None:
    """Print what a command will do, with the amounts of it."""
    print(f"llamarm: {command}: {text}", file=sys.stderr, flush=True)


def say_next(steps: Mapping[str, Sequence[object]]) -> None:
    """Print commands, one a line.

    Args:
        steps: {what it is for: words after `llamarm`}
    """
    commands = {purpose: shlex.join(["llamarm", *map(str, words)]) for purpose, words in steps.items()}
    width = max(map(len, commands.values()), default=0)
    for number, (purpose, command) in enumerate(commands.items()):
        print(f"{'      ' if number else 'Next: '}{command:{width}}  # {purpose}", file=sys.stderr, flush=True)


def duration_of(episodes: int, folder: Path) -> str:
    """How long episodes will take by the last evaluation in a folder, as part of a sentence; "" if there was none."""
    file = RunFolder(folder).eval_info
    if not file.exists():
        return ""
    each_s = read_json(file).get("overall", {}).get("eval_ep_s")
    if not each_s:
        return ""
    return f"; at the {each_s:.2g} s per episode of the last evaluation there, {episodes * each_s / 60:.1f} min"
