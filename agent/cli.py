"""The command `llamarm`, of which `llamarm --help` lists the commands.

It only imports and runs the command's module, agent/commands/COMMAND.py: `llamarm --help` loads neither a simulator nor
torch.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from agent.runs.interrupts import termination_stops
from agent.runs.messages import ending

_HELP = """\
usage: llamarm COMMAND ...

Train, evaluate and deploy vision-language-action policies for robot manipulation.

  doctor                     what this machine can do, and the command for what is missing
  data    DIR ...            what a LeRobotDataset of any program holds, and what of it would be refused
  collect RECIPE --out DIR   record the scripted expert's demonstrations as a LeRobotDataset (or WORLD for RECIPE)
  train   RECIPE --out DIR   train a policy, evaluate it and write the report
  eval    POLICY             success on held-out episodes, with intervals, blind controls and videos
  compare BEFORE AFTER       paired comparison of two evaluations of the same episodes, with significance tests
  experts POLICY             usage of the mixture's experts by task and phase, and success without each
  scale   RECIPE --out DIR   scaling law: train a grid of data and model sizes, and fit it
  plan                       which models fit a machine, for inference and for training
  drive   POLICY             drive a robot, simulated or real, and record it
  console POLICY             browser page: instruct, watch, disturb, stop, take over, record
  serve   POLICY             inference server over a websocket, with the protocols of openpi and vla-eval
  report  RUN                write a run's report, one HTML file

llamarm COMMAND --help (or llamarm help COMMAND) lists a command's options, llamarm train --help the recipes;
llamarm --version prints the version, llamarm --completion a script that completes commands and options in bash.
"""


COMMANDS = (
    "doctor",
    "data",
    "collect",
    "train",
    "eval",
    "compare",
    "experts",
    "scale",
    "plan",
    "drive",
    "console",
    "serve",
    "report",
)


def main(args: Sequence[str] | None = None) -> None:
    """Entry point of the command."""
    args = list(sys.argv[1:] if args is None else args)
    try:
        with termination_stops():
            _run(args)
            print(end="", flush=True)  # sys.stdout is None where the parent process closed it
    except (Exception, KeyboardInterrupt) as error:
        found = ending(error, args)
        if found is None:
            raise
        print(found.line, end="", file=sys.stderr)
        sys.exit(found.status)


def _run(args: list[str]) -> None:
    """Run the command that the first argument names, or print help, the version or the completion."""
    first = args[0] if args else "help"
    if first == "--version":
        from agent.runs.run_folder import versions

        print(f"llamarm {versions()['llamarm']}")
    elif first == "--completion":
        from agent.commands.shared.completion import bash_completion

        print(bash_completion(COMMANDS), end="")
    elif first in ("-h", "--help") or (first == "help" and len(args) < 2):
        print(_HELP, end="")
    elif first == "help":
        _command(args[1])([*args[2:], "--help"])
    else:
        _command(first)(args[1:])


def _command(name: str) -> Callable[[list[str]], None]:
    """The function that runs a command, given the arguments after its name.

    Raises:
        UserError: there is no such command.
    """
    if name not in COMMANDS:
        from agent.runs.names import check_name

        check_name("command", name, COMMANDS)
    return import_module(f"agent.commands.{name}").run


if __name__ == "__main__":
    main()
