"""The command `llamarm`: collect, train, eval, compare, experts, scale, plan, drive, console, serve, report.

This file only reads the command line and calls what does the work, importing it then: `llamarm --help` loads neither a
simulator nor torch. A recipe comes right after `collect` and `train`, because it decides which options there are: every
field of its RunConfig is one.
"""

from __future__ import annotations

import errno
import os
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from agent.commands.options import parse, parse_with
from agent.runs.checks import NumEpisodes
from agent.runs.interrupts import Terminated, termination_stops
from agent.runs.names import check_name
from agent.runs.run_folder import RunFolder, check_start, start_run, versions
from agent.runs.run_lock import locked
from envs.errors import UserError

if TYPE_CHECKING:
    from agent.evaluation.evaluate import Evaluation
    from agent.recipes import RunConfig
    from agent.training.demonstrations import DemonstrationsConfig
    from agent.training.improve import ImproveConfig
    from rollout.workers.workers import WorkersConfig

_HELP = """\
usage: llamarm COMMAND ...

Train, evaluate and drive robot agents that see through cameras and obey written instructions.

  collect RECIPE --out DIR   record the scripted expert's demonstrations as a LeRobotDataset (a world's name will do)
  train   RECIPE --out DIR   train a policy, evaluate it and write the report
  eval    POLICY             success on held-out episodes, with intervals, blind controls and films
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


@dataclass(frozen=True, kw_only=True)
class Collect:
    """Record the scripted expert's demonstrations as a LeRobotDataset. Called again, it goes on where it stopped."""

    out: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """The dataset's folder."""


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train a policy, evaluate it and write the report."""

    out: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """The run's folder."""
    resume: bool = False
    """Go on with the run in that folder."""


@dataclass(frozen=True, kw_only=True)
class Eval:
    """Success on held-out episodes, with intervals, blind controls and films."""

    policy: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="POLICY")]
    """A run (its best policy, else its last checkpoint), a checkpoint, a policy's folder, or "expert" for the world's
    scripted expert."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder of eval_info.json and films/; the run's own folder if POLICY is a run."""
    controls: bool = False
    """Also run the blind controls: shuffled instructions and black frames."""
    films: NumEpisodes = 1
    """Episodes to film, per task and variation."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """Write RUN/report.html, one file that shows the run and needs nothing else."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of a run or of an evaluation."""


def main(args: Sequence[str] | None = None) -> None:
    """Entry point of the command."""
    args = list(sys.argv[1:] if args is None else args)
    try:
        with termination_stops():
            _run(args)
            print(end="", flush=True)  # sys.stdout is None where whoever started the process closed it
    except KeyboardInterrupt as stop:
        sys.exit(_stopped(args, stop))
    except BrokenPipeError:
        if not _reader_has_gone():
            raise
    except OSError as error:
        if error.errno not in _REMEDIES:
            raise
        where = f": {error.filename}" if error.filename else ""
        print(f"llamarm: {error.strerror}{where}; {_REMEDIES[error.errno]}", file=sys.stderr)
        sys.exit(2)
    except (UserError, FloatingPointError) as error:
        print(f"llamarm: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UserError) else 1)


def _run(args: list[str]) -> None:
    """The command that comes first; help and the version may be asked for in its place."""
    first = args[0] if args else "help"
    if first == "--version":
        print(f"llamarm {versions()['llamarm']}")
    elif first in ("-h", "--help") or (first == "help" and len(args) < 2):
        print(_HELP, end="")
    elif first == "help":
        _COMMANDS[check_name("command", args[1], _COMMANDS)]([*args[2:], "--help"])
    else:
        _COMMANDS[check_name("command", first, _COMMANDS)](args[1:])


_OTHER_PLACE = "name another folder"
_GO_ON = "make room, then go on as after Ctrl-C: train with --resume, others by the same command"
_REMEDIES = {
    errno.ENOSPC: _GO_ON,
    errno.EDQUOT: _GO_ON,
    errno.EFBIG: _GO_ON,
    errno.EACCES: _OTHER_PLACE,
    errno.EPERM: _OTHER_PLACE,
    errno.EROFS: _OTHER_PLACE,
    errno.ENOTDIR: _OTHER_PLACE,
    errno.EEXIST: _OTHER_PLACE,
    errno.EISDIR: _OTHER_PLACE,
    errno.ENAMETOOLONG: _OTHER_PLACE,
}
"""What to do about errors of the machine, for a user to read; others are bugs and keep their traceback."""


def _reader_has_gone() -> bool:
    """Whether nobody reads the output any more (`| head`). All results are in files by then, so nothing is lost."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end
        return True
    return False


def _collect(args: list[str]) -> None:
    from agent.training.demonstrations import DemonstrationsConfig, collect_demonstrations
    from envs.make import WORLDS
    from rollout.workers.workers import WorkersConfig

    if args and (args[0] in WORLDS or ":" in args[0]):
        name, demonstrations, rollout = args[0], DemonstrationsConfig(world=args[0]), WorkersConfig()
    else:
        name, demonstrations, rollout = _recipe_s_demonstrations(args)
    options = parse_with(Collect, f"collect {name}", args[1:], demonstrations=demonstrations, rollout=rollout)
    outcome = collect_demonstrations(options.demonstrations, options.out, options.rollout)
    for task, count in outcome.episodes.items():
        failed = ", ".join(f"{reason} {times}" for reason, times in outcome.failed[task].items())
        print(f"{task}: {count} episodes" + (f"; redrawn after the expert failed: {failed}" if failed else ""))


def _recipe_s_demonstrations(args: list[str]) -> tuple[str, DemonstrationsConfig, WorkersConfig]:
    from agent.training.improve import ImproveConfig

    name, recipe = _recipe("collect", args)
    config = recipe()
    if isinstance(config, ImproveConfig):
        raise UserError(f"recipe {name!r} begins with a policy and has no demonstrations to collect")
    return name, config.demonstrations, config.rollout


def _train(args: list[str]) -> None:
    name, recipe = _recipe("train", args)
    options = parse_with(Train, f"train {name}", args[1:], config=recipe())
    config, command = options.config, ["llamarm", "train", *args]

    from agent.report.page import write_report
    from agent.training.improve import ImproveConfig, check_whole, improve
    from agent.training.loop import check_run, train

    # All is refused before there is a folder that another try would have to avoid.
    check_start(options.out, config, resume=options.resume)
    if isinstance(config, ImproveConfig):
        check_whole(config, RunFolder(options.out))
    else:
        check_run(config)
    with locked(options.out, command):
        run = start_run(options.out, config, resume=options.resume)
        with run.session(command):
            evaluation, controls = improve(config, run) if isinstance(config, ImproveConfig) else train(config, run)
        report = write_report(run.root)
    _say_outcome(run, evaluation, controls)
    print(report)
    print(run.root)


def _say_outcome(run: RunFolder, evaluation: Evaluation | None, controls: dict[str, Evaluation]) -> None:
    from agent.evaluation.compare import compare
    from agent.evaluation.eval_info import read_eval_info
    from agent.report.success_tables import print_success

    if evaluation is not None:
        print_success(evaluation, controls)
    if run.before.eval_info.exists():
        print(f"first -> best policy: {compare(read_eval_info(run.before.eval_info), read_eval_info(run.eval_info))}")
    for phase in run.record["phases"]:
        figures = "".join(f", {key} {value:.3g}" for key, value in phase.items() if key not in ("name", "wall_s"))
        print(f"{phase['name']}: {phase['wall_s']:.0f} s{figures}")
    print(f"peak memory of this process: {run.record['sessions'][-1]['peak_memory_gb']:.2f} GB")


def _eval(args: list[str]) -> None:
    from agent.commands.acting import ActingConfig, acting, folder_for
    from agent.evaluation.measure import measure
    from agent.report.success_tables import print_success
    from rollout.workers.workers import WorkersConfig

    options = parse_with(Eval, "eval", args, acting=ActingConfig(), rollout=WorkersConfig(workers=0))
    folder = RunFolder(folder_for(options.policy, options.out, "eval_info.json"))
    with (
        acting(options.policy, options.acting, options.rollout) as (measured, tasks, execute_steps),
        locked(folder.root, ["llamarm", "eval", *args]),
    ):
        config = options.acting.evaluation(execute_steps, controls=options.controls, films=options.films)
        evaluation, controls = measure(measured, tasks, config, folder)
    print_success(evaluation, controls)
    print(folder.eval_info)


def _compare(args: list[str]) -> None:
    from agent.commands.compare import compare_command

    compare_command(args)


def _experts(args: list[str]) -> None:
    from agent.commands.experts import experts

    experts(args)


def _scale(args: list[str]) -> None:
    from agent.training.loop import RunConfig

    name, recipe = _recipe("scale", args)
    config = recipe()
    if not isinstance(config, RunConfig):
        raise UserError(f"recipe {name!r} begins with a policy; a grid begins with demonstrations")

    from agent.commands.scale import scale

    scale(args[1:], name, config)


def _plan(args: list[str]) -> None:
    from agent.commands.plan import plan

    plan(args)


def _drive(args: list[str]) -> None:
    from agent.commands.drive import drive

    drive(args)


def _console(args: list[str]) -> None:
    from agent.commands.console import console

    console(args)


def _serve(args: list[str]) -> None:
    from agent.commands.serve import serve

    serve(args)


def _report(args: list[str]) -> None:
    options = parse(Report, "report", args)

    from agent.report.page import write_report

    print(write_report(options.run))


_COMMANDS = {
    "collect": _collect,
    "train": _train,
    "eval": _eval,
    "compare": _compare,
    "experts": _experts,
    "scale": _scale,
    "plan": _plan,
    "drive": _drive,
    "console": _console,
    "serve": _serve,
    "report": _report,
}


def _recipe(command: str, args: list[str]) -> tuple[str, Callable[[], RunConfig | ImproveConfig]]:
    """The recipe that comes right after the command; without one, the recipes there are."""
    from agent.recipes import RECIPES

    if args and not args[0].startswith("-"):
        name = check_name("recipe", args[0], RECIPES)
        return name, RECIPES[name]
    width = max(map(len, RECIPES))
    print(f"usage: llamarm {command} RECIPE --out DIR ...\n\nRecipes:")
    for name, recipe in RECIPES.items():
        print(f"  {name:{width}}  {(recipe.__doc__ or '').strip().partition(chr(10))[0]}")
    print(f"\nllamarm {command} RECIPE --help lists its options.")
    sys.exit(0 if set(args) & {"-h", "--help"} else 2)


def _stopped(args: list[str], stop: KeyboardInterrupt) -> int:
    """What to type to go on; as a shell's, the status is 128 and the signal's number."""
    again = ["llamarm", *args]
    if args[0] == "train" and "--resume" not in args:
        again.append("--resume")
    what = "start over" if args[0] in ("eval", "experts", "drive", "console") else "go on"
    print(f"\nStopped. To {what}: {shlex.join(again)}", file=sys.stderr)
    return 128 + (stop.number if isinstance(stop, Terminated) else signal.SIGINT)


if __name__ == "__main__":
    main()
