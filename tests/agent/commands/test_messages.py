"""What a command says first and last, and in which colours."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from next_commands import next_commands

from agent.cli import main
from agent.commands import collect, train
from agent.evaluation.config import EvaluationConfig
from agent.learning.config import LearnerConfig
from agent.recipes import dagger_mt50
from agent.runs.messages import say, say_next
from agent.runs.run_folder import PRETRAINED, RunFolder
from agent.training.config import DemonstrationsConfig, RunConfig
from agent.training.demonstrations import Demonstrations
from agent.training.practice import PracticeConfig

ROOT = Path(__file__).parents[3]


def test_messages_leave_standard_output_to_results(capsys: pytest.CaptureFixture[str]) -> None:
    say("eval", "evaluates 2 episodes of 1 task")
    say_next("see it on one page", "report", Path("my runs/a"))
    said = capsys.readouterr()
    assert not said.out
    assert (
        said.err == "llamarm eval: evaluates 2 episodes of 1 task\nTo see it on one page: llamarm report 'my runs/a'\n"
    )


@pytest.mark.parametrize(
    ("path", "script", "program"),
    [
        ("bin", ".venv/bin/llamarm", "llamarm"),
        ("nowhere", ".venv/bin/llamarm", ".venv/bin/llamarm"),
        ("nowhere", "-c", "llamarm"),
    ],
)
def test_the_next_command_can_be_pasted_also_before_the_environment_is_activated(
    path: str,
    script: str,
    program: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/llamarm").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path / path))
    monkeypatch.setattr(sys, "argv", [script])
    say_next("see it on one page", "report", "runs/a")
    assert capsys.readouterr().err == f"To see it on one page: {program} report runs/a\n"


RUN = RunConfig(
    demonstrations=DemonstrationsConfig(
        world="libero", tasks=("a", "b"), episodes_per_task=600, further_variations=("c",)
    ),
    learner=LearnerConfig(batch_size=64, num_updates=1700),
    evaluation=EvaluationConfig(episodes_per_task=10, variations=("train", "c", "d")),
)


def test_the_amounts_of_a_run_are_those_of_its_config(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    said = (
        "collects 2,400 demonstrations of 2 tasks; makes 1,700 updates of 64 samples{done}; "
        "evaluates 60 episodes of 2 tasks, then 20 episodes of 2 tasks with each blind control"
    )
    assert RUN.ahead(run) == said.format(done="")
    run.checkpoint(500).mkdir(parents=True)
    assert RUN.ahead(run) == said.format(done=" (500 are done)")


def test_a_world_is_not_made_to_count_its_tasks(tmp_path: Path) -> None:
    of_all = replace(RUN, demonstrations=replace(RUN.demonstrations, tasks=()))
    assert of_all.ahead(RunFolder(tmp_path)) == (
        "collects 1,200 demonstrations per task; makes 1,700 updates of 64 samples; "
        "evaluates 30 episodes per task, then 10 episodes per task with each blind control"
    )
    practice = PracticeConfig(world="libero", tasks=("a",), episodes_per_task=6)
    evaluation = replace(RUN.evaluation, controls=False)
    config = replace(dagger_mt50(), init="runs/a", practice=practice, iterations=4, selection_episodes=3)
    assert replace(config, evaluate_every=2, evaluation=evaluation).ahead(RunFolder(tmp_path)) == (
        "fine-tunes runs/a in 4 iterations of 6 episodes of 1 task; chooses the best by 3 episodes of 1 task, every 2 "
        "iterations; evaluates 30 episodes of 1 task, of the initial and the best policy"
    )
    assert EvaluationConfig(episodes_per_task=1, controls=False).ahead(("a",)) == "evaluates 1 episode of 1 task"


@pytest.mark.parametrize("world", ["tabletop", "metaworld-mt50"])
def test_a_trained_policy_is_compared_served_and_in_its_world_instructed(
    world: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunFolder(tmp_path / "a run")
    policy = run.best / PRETRAINED
    for path, text in {
        policy / "config.json": "{}",
        policy / "processor.json": f'{{"deployment": {{"world": "{world}"}}}}',
        run.before.eval_info: "{}",
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    train._say_next(run)
    root = str(run.root)
    instructed = [["console", root]] if world == "tabletop" else []
    assert next_commands(capsys.readouterr().err) == [["compare", f"{root}/before", root], *instructed, ["serve", root]]


@pytest.mark.parametrize(
    ("args", "recipe", "place"),
    [
        (["sft_demo"], "sft_demo", ""),
        (["sft_demo", "--tasks", "reach"], "sft_demo", "--demonstrations.world tabletop --demonstrations.tasks reach"),
        (["metaworld-mt50"], "sft_mt50", ""),
        (["my_worlds:make"], "sft_demo", "--demonstrations.world my_worlds:make --demonstrations.tasks reach"),
    ],
)
def test_demonstrations_are_cloned_by_a_recipe_of_their_world(
    args: list[str], recipe: str, place: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = Demonstrations(episodes={"reach": 1}, failed={"reach": {}})
    monkeypatch.setattr(collect, "collect_demonstrations", lambda *_: outcome)
    main(["collect", *args, "--out", "my demos"])
    said = capsys.readouterr()
    assert said.out == "reach: 1 episode\n"
    words = ["train", recipe, "--data", "my demos", *place.split(), "--out", "my demos_policy"]
    assert next_commands(said.err) == [words]


IN_COLOUR = """
from contextlib import suppress
from rich.table import Table
from agent.cli import main
from agent.commands.doctor import _print
from agent.report.tables import print_table
from agent.runs.doctor import Part
from agent.runs.progress import progress_bars
from rollout.dataset.decode import decoding_bar
for words in (["--help"], []):
    with suppress(SystemExit):
        main(["compare", *words])
    print("END", flush=True)
_print([Part(name="GPU", works=False, found="none", remedy="buy one")])
print("END", flush=True)
for bars in (progress_bars(), decoding_bar("a", 2, quiet=False)):
    with bars:
        bars.advance(bars.add_task("updates", total=2))
    print("END", flush=True)
print_table(Table("task", title="success"))
"""
"""Everything that is written in colour, one part after the other, and a table, which has none."""
COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:[349]|10)[0-8][;m]")


def on_a_terminal(code: str, no_color: str) -> str:
    """What code writes to a terminal."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "NO_COLOR": no_color}
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environment, stdout=theirs, stderr=theirs):
        os.close(theirs)
        written = b""
        try:
            while part := os.read(ours, 65536):
                written += part
        except OSError:  # how Linux says that the other side has closed
            os.close(ours)
    return written.decode()


def test_colours_are_for_a_terminal_that_does_not_refuse_them() -> None:
    *coloured, table = on_a_terminal(IN_COLOUR, no_color="").split("END")
    assert [bool(COLOUR.search(part)) for part in coloured] == [True] * 5
    plain = on_a_terminal(IN_COLOUR, no_color="1")
    assert "success" in table and "success" in plain
    assert not COLOUR.search(plain)


def test_a_file_gets_no_escape_sequences() -> None:
    done = subprocess.run([sys.executable, "-c", IN_COLOUR], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "success" in done.stdout and "updates" in done.stderr and "Required options" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr
