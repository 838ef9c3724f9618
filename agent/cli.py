"""The command `llamarm`: collect, train, eval, compare, experts, scale, plan, drive, console, serve, report.

This file only finds the command's module, agent/commands/COMMAND.py, and has it run: `llamarm --help` loads neither a
simulator nor torch.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from agent.runs.exit_status import ending
from agent.runs.interrupts import termination_stops

_HELP = """\
usage: llamarm COMMAND ...

Train, evaluate and drive robot agents that see through cameras and obey written instructions.

  collect RECIPE --out DIR   record the scripted expert's demonstrations as a LeRobotDataset (a world's name will do)
  train   RECIPE --out DIR   train a policy, evaluate it and write the report
  eval    POLICY             success on held-out episodes, with intervals, blind controls and videos
  compare BEFORE AFTER       two evaluations of the same episodes: won, lost, and whether that could be chance
  experts POLICY             which experts decide what, and what is lost without each
  scale   RECIPE --out DIR   more data or more parameters: train a grid of both, and fit what comes of it
  plan                       which models a machine holds, to act and to be trained
  drive   POLICY             drive a robot, simulated or real, and record what it does
  console POLICY             a page in the browser: instruct, watch, disturb, stop, take over, record
  serve   POLICY             answer observations with actions over a websocket, as openpi and vla-eval do
  report  RUN                one HTML file that shows a run

llamarm COMMAND --help (or llamarm help COMMAND) lists a command's options, llamarm train --help the recipes;
llamarm --version says which version this is.
"""


COMMANDS = ("collect", "train", "eval", "compare", "experts", "scale", "plan", "drive", "console", "serve", "report")


def main(args: Sequence[str] | None = None) -> None:
    """Entry point of the command."""
    args = list(sys.argv[1:] if args is None else args)
    try:
        with termination_stops():
            _run(args)
            print(end="", flush=True)  # sys.stdout is None where whoever started the process closed it
    except (Exception, KeyboardInterrupt) as error:
        found = ending(error, args)
        if found is None:
            raise
        print(found.line, end="", file=sys.stderr)
        sys.exit(found.status)


def _run(args: list[str]) -> None:
    """The command that comes first; help and the version may be asked for in its place."""
    first = args[0] if args else "help"
    if first == "--version":
        from agent.runs.run_folder import versions

        print(f"llamarm {versions()['llamarm']}")
    elif first in ("-h", "--help") or (first == "help" and len(args) < 2):
        print(_HELP, end="")
    elif first == "help":
        _command(args[1])([*args[2:], "--help"])
    else:
        _command(first)(args[1:])


def _command(name: str) -> Callable[[list[str]], None]:
    """What runs a command, given the arguments that follow its name.

    Raises:
        UserError: there is no such command.
    """
    if name not in COMMANDS:
        from agent.runs.names import check_name

        check_name("command", name, COMMANDS)
    return import_module(f"agent.commands.{name}").run


if __name__ == "__main__":
    main()
