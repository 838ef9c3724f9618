"""Time until `llamarm` prints help or refuses a misspelt option, and until `llamarm plan` prints its tables.

    python -m benchmarks.start_up --out docs/results/start_up.md

User plus system CPU seconds of the process, the least of some repeats: on a busy machine the clock on the wall says
little, and on an idle one it shows about the same. With `--before FOLDER` the code in another folder is measured beside
it, each call once.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from annotated_types import Ge

from agent.cli import COMMANDS
from benchmarks.document import finish, head

_RECIPES = {"collect": "sft_demo", "train": "sft_demo", "scale": "sft_demo"}
_OTHERS = (
    ("train", "ppo_tabletop", "--help"),
    ("train", "sft_dmeo"),
    ("train", "sft_demo", "--out", "none", "--learner.batch-size", "0"),
    ("train", "sft_demo", "--out", "none", "--demonstrations.tasks", "raech"),
    ("train", "sft_demo", "--out", "none", "--model", "nnao"),
    ("eval", "expert", "--out", "none", "--tasks", "lfit"),
    ("eval", "none", "--out", "none"),
    ("plan", "--models", "nano"),
    ("plan",),
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure."""

    repeats: Annotated[int, Ge(1)] = 3
    before: Path | None = None
    """Folder of other code, to compare with."""
    out: Path | None = None
    """File to which the table is written, in addition to the screen."""


def cpu_seconds(args: Sequence[str], root: Path) -> float:
    """User and system time of one call of the code in `root`."""
    began = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "agent.cli", *args]
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=root, env=environment, capture_output=True, check=False)
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended.ru_utime - began.ru_utime + ended.ru_stime - began.ru_stime


def calls() -> list[tuple[str, ...]]:
    """Help and a misspelt option of every command, and others."""
    named = [(command, *([_RECIPES[command]] if command in _RECIPES else [])) for command in COMMANDS]
    return [("--help",), *((*name, "--help") for name in named), *((*name, "--hlep") for name in named), *_OTHERS]


def main(options: Options) -> None:
    """Measure and print."""
    roots = [] if options.before is None else [(options.before.resolve(), 1)]
    roots.append((Path.cwd(), options.repeats))
    lines = head(
        "Start-up",
        "start_up",
        f"User plus system CPU seconds of a process, the least of {options.repeats}, with compiled bytecode and files "
        "in the system's cache" + ("; the code before once." if options.before else "."),
    )
    columns = [*(["before, s"] if options.before else []), "s"]
    lines += ["", f"| llamarm ... | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    for args in calls():
        least = (f"{min(cpu_seconds(args, root) for _ in range(repeats)):.2f}" for root, repeats in roots)
        lines.append(f"| `{' '.join(args)}` | {' | '.join(least)} |")
        print(lines[-1], flush=True)
    finish(lines, options.out)


if __name__ == "__main__":
    main(tyro.cli(Options))
