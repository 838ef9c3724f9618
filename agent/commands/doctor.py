"""The command `llamarm doctor`: what this machine can do, and the command for what is missing."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.commands.shared.options import parse
from agent.runs.messages import say
from envs.errors import UserError

if TYPE_CHECKING:
    from agent.runs.doctor import Part


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """What this machine can do: hardware, rendering, video, suites, versions; exits with 1 if what the base needs is
    missing. `llamarm data DIR` examines a dataset.
    """


def run(args: list[str]) -> None:
    """Run the command.

    Raises:
        UserError: something is named; that is for `llamarm data`.
    """
    if args and not args[0].startswith("-"):
        raise UserError(f"doctor examines this machine and takes no {args[0]!r}; a dataset: llamarm data {args[0]}")
    parse(Doctor, "doctor", args)
    say("doctor", "draws a frame, writes and reads a video in each codec, and asks each suite for its versions")

    from agent.runs.doctor import parts

    found = list(parts())
    _print(found)
    if any(part.needed and not part.works for part in found):
        sys.exit(1)


def _print(found: list[Part]) -> None:
    """A line for each part, then the commands for what is missing."""
    from rich.table import Table
    from rich.text import Text

    from agent.report.tables import Output

    console = Output()
    table = Table.grid(padding=(0, 2))
    for part in found:
        state = ("ready", "green") if part.works else ("MISSING", "red") if part.needed else ("missing", "yellow")
        table.add_row(Text(*state), part.name, Text(part.found, overflow="fold"))
    console.print(table)
    remedies = [part for part in found if part.remedy]
    if remedies:
        console.print("\nTo add what is missing:")
        width = max(len(part.name) for part in remedies)
        for part in remedies:
            console.print(f"  {part.name:{width}}  {part.remedy}", soft_wrap=True)
    needed = [part.name for part in found if part.needed and not part.works]
    if needed:
        console.print(f"\nllamarm does not work without: {', '.join(needed)}", style="red")
    else:
        first = "llamarm train sft_demo --out runs/demo"
        console.print(f"\nAll that the base needs is here. A first policy: {first}", soft_wrap=True)
