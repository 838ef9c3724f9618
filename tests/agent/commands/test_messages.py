"""What a command says first, what it says last, and in which colours."""

from __future__ import annotations

import ast
import json
import os
import pty
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Never

import pytest

from agent import cli
from agent.commands import train
from agent.commands.shared import options
from agent.commands.shared.messages import duration_of, say_ahead, say_next
from agent.commands.shared.options import recipe_for
from agent.recipes import RECIPES, dagger_mt50, sft_demo, sft_tabletop
from agent.runs.checks import check_config
from agent.runs.run_folder import RunFolder
from agent.runs.worlds import count_episodes

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_says_what_it_will_do(command: str) -> None:
    tree = ast.parse((ROOT / f"agent/commands/{command}.py").read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    said = [call.args[0] for call in calls if ast.unparse(call.func) == "say_ahead"]
    assert said
    assert all(isinstance(name, ast.Constant) and name.value == command for name in said)


def test_what_is_said_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    say_ahead("eval", "evaluates 2 episodes")
    say_next({"one page of it": ["report", Path("my runs/a")], "use it": ["serve", "b"]})
    said = capsys.readouterr()
    assert not said.out
    assert said.err.splitlines() == [
        "llamarm: eval: evaluates 2 episodes",
        "Next: llamarm report 'my runs/a'  # one page of it",
        "      llamarm serve b             # use it",
    ]


def test_the_amounts_of_a_run_are_said_before_it(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    assert sft_demo().ahead(run) == (
        "collects 2,400 episodes of 6 tasks, then makes 1,300 updates of 128 samples, "
        "then evaluates 120 episodes of 6 tasks, then 240 blind controls"
    )
    assert sft_tabletop().ahead(run).startswith("collects 4,800 episodes of 12 tasks, then makes 10,000 updates")
    (run.root / "checkpoints/000500").mkdir(parents=True)
    assert "then makes 1,300 updates of 128 samples (500 are done)" in sft_demo().ahead(run)


def test_the_amounts_of_a_fine_tuning_run_are_said_before_it(tmp_path: Path) -> None:
    said = dagger_mt50().ahead(RunFolder(tmp_path / "run"))
    assert "in 4 iterations of 300 episodes of 50 tasks, chooses the best by 200 episodes of 50 tasks every 1" in said
    assert "evaluates 500 episodes of 50 tasks, then 1,000 blind controls, before and after" in said


def test_tasks_that_are_not_imported_are_not_counted() -> None:
    assert count_episodes(20, None) == "20 episodes of every task"
    assert count_episodes(1, 1) == "1 episode of 1 task"


def test_a_time_is_said_only_where_one_was_measured(tmp_path: Path) -> None:
    assert duration_of(240, tmp_path) == ""
    (tmp_path / "eval_info.json").write_text(json.dumps({"overall": {"eval_ep_s": 0.5}}))
    assert duration_of(240, tmp_path) == "; at the 0.5 s per episode of the last evaluation there, 2.0 min"


def test_a_world_has_its_recipe() -> None:
    assert recipe_for("tabletop") == "sft_demo"
    assert recipe_for("metaworld-mt50") == "sft_mt50"
    assert recipe_for("my_worlds:make") == "sft_demo"


class TakenError(Exception):
    """The command line was read, and the work would begin now."""


@pytest.mark.parametrize("name", [name for name in RECIPES if name != "sft_tiny"])
def test_what_a_run_says_to_do_next_is_taken(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(parsed: Any) -> Never:
        check_config(parsed)
        raise TakenError

    run = RunFolder(tmp_path / "a run")
    if name.startswith("ppo"):
        run.before.root.mkdir(parents=True)
        run.before.eval_info.write_text("{}")
    say_next(train._next(run, RECIPES[name]()))
    lines = capsys.readouterr().err.splitlines()
    assert ("compare" in lines[0]) == name.startswith("ppo")
    assert "serve" in lines[-1]
    monkeypatch.setattr(options, "check_config", stop)
    for line in lines:
        program, *args = shlex.split(line.removeprefix("Next:"), comments=True)
        assert program == "llamarm"
        with pytest.raises(TakenError):
            cli.main(args)


def shown(args: list[str], environment: Mapping[str, str]) -> str:
    """What a command writes to a terminal."""
    process, terminal = pty.fork()
    if not process:
        os.environ.update(environment, TERM="xterm-256color")
        os.execv(sys.executable, [sys.executable, "-m", "agent.cli", *args])
    written = b""
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # how Linux says that the other side has closed
            break
        if not part:
            break
        written += part
    os.waitpid(process, 0)
    os.close(terminal)
    return written.decode()


COLOUR = re.compile(r"\x1b\[(?:\d+;)*[349][0-7]")


@pytest.mark.parametrize("args", [["compare", "--help"], ["compare", "--bfore", "x"]])
def test_a_terminal_has_colours_unless_they_are_refused(args: list[str]) -> None:
    assert COLOUR.search(shown(args, {"NO_COLOR": ""}))
    assert "\x1b" not in shown(args, {"NO_COLOR": "1"})
