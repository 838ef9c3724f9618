"""The command `llamarm train`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from agent.commands.shared.options import parse_with, recipe_of
from agent.runs.messages import say, say_next
from agent.runs.policies import DEFAULT_WORLD
from agent.runs.run_folder import RunFolder, check_start, policy_folder, start_run
from agent.runs.run_lock import locked
from agent.runs.worlds import WorldPython
from vla_model.files.deployment import saved_world

if TYPE_CHECKING:
    from agent.evaluation.evaluate import Evaluation


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train a policy, evaluate it and write the report."""

    out: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """The run's folder."""
    resume: bool = False
    """Continue the run in that folder."""
    world_python: WorldPython = None
    """Interpreter in which the world, a MODULE:FUNCTION, runs, for packages that conflict with ours
    (docs/your_task.md)."""


def run(args: list[str]) -> None:
    """Run the command; the first argument is a recipe, and every field of its config is an option."""
    name, recipe = recipe_of("train", args)
    options = parse_with(Train, f"train {name}", args[1:], config=recipe)
    config = options.config.in_interpreter(options.world_python)
    command = ["llamarm", "train", *args]
    # Invalid input must not leave a folder behind, which would make the next try fail.
    check_start(options.out, config, resume=options.resume)
    config.check_names(RunFolder(options.out))

    from agent.report.render import write_report
    from agent.training import improve, loop

    ready = {"train": loop.ready, "improve": improve.ready}[config.loop]
    with ready(config, RunFolder(options.out)) as work, locked(options.out, command):
        folder = start_run(options.out, config, resume=options.resume)
        say("train", config.ahead(folder))
        with folder.session(command):
            evaluation, controls = work()
        report = write_report(folder.root)
    _say_outcome(folder, evaluation, controls)
    print(report)
    print(folder.root)
    _say_next(folder)


def _say_next(folder: RunFolder) -> None:
    if folder.before.eval_info.exists():
        say_next("compare the best policy with the initial one", "compare", folder.before.root, folder.root)
    if saved_world(policy_folder(folder.root)) == DEFAULT_WORLD:
        say_next("instruct the policy in a browser", "console", folder.root)
    say_next("serve it to other programs", "serve", folder.root)


def _say_outcome(folder: RunFolder, evaluation: Evaluation | None, controls: dict[str, Evaluation]) -> None:
    from agent.evaluation.compare import compare
    from agent.evaluation.eval_info import read_eval_info
    from agent.evaluation.open_loop import read_action_error
    from agent.report.error_tables import print_action_error
    from agent.report.success_tables import print_success

    if folder.action_error.exists():
        print_action_error(read_action_error(folder.action_error))
    if evaluation is not None:
        print_success(evaluation, controls)
    if folder.before.eval_info.exists():
        found = compare(read_eval_info(folder.before.eval_info), read_eval_info(folder.eval_info))
        print(f"first -> best policy: {found}")
    record = folder.record
    for phase in record["phases"]:
        figures = "".join(f", {key} {value:.3g}" for key, value in phase.items() if key not in ("name", "wall_s"))
        print(f"{phase['name']}: {phase['wall_s']:.0f} s{figures}")
    print(f"peak memory of this process: {record['sessions'][-1]['peak_memory_gb']:.2f} GB")
