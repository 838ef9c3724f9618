"""The command `llamarm report`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from agent.commands.shared.options import parse
from agent.runs.messages import say_next
from agent.runs.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class Report:
    """Write RUN/report.html, one self-contained file."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of a run or of an evaluation."""


def run(args: list[str]) -> None:
    """Run the command."""
    options = parse(Report, "report", args)

    from agent.report.render import write_report

    print(write_report(options.run))
    if RunFolder(options.run).last_checkpoint():
        say_next("serve its policy to other programs", "serve", options.run)
