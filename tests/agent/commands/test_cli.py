"""The command line: its options, messages for misspelt names, and the command that resumes after Ctrl-C."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, get_type_hints

import pytest

from agent import cli
from agent.commands.collect import Collect
from agent.commands.data import Data
from agent.commands.drive import Drive
from agent.commands.eval import Eval
from agent.commands.experts import Experts
from agent.commands.plan import Plan
from agent.commands.report import Report
from agent.commands.scale import Scale
from agent.commands.shared.acting import ActingConfig
from agent.commands.train import Train
from agent.evaluation.evaluate import EpisodeResult, Evaluation
from agent.runs.checks import check_config
from agent.runs.run_folder import PRETRAINED, RunFolder
from agent.training.config import DemonstrationsConfig
from envs.types import EpisodeSpec

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@dataclass(frozen=True, kw_only=True)
class Optimiser:
    learning_rate: float = 1e-3
    """Peak."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    seed: int = 0
    """Of all random numbers."""
    demonstrations: DemonstrationsConfig = field(default_factory=DemonstrationsConfig)
    optimiser: Optimiser = field(default_factory=Optimiser)
    loop: ClassVar = "train"

    def check_names(self, run: RunFolder) -> None:
        """As of the configs of recipes."""

    def ahead(self, run: RunFolder) -> str:
        return f"trains in {run.root.name}"

    def from_demonstrations(self) -> RunConfig:
        return self

    def in_interpreter(self, python: Path | None) -> RunConfig:
        assert python is None
        return self


def tiny() -> RunConfig:
    """A run for tests."""
    return RunConfig(optimiser=Optimiser(learning_rate=0.5))


EVALUATION = Evaluation(
    results=(
        EpisodeResult(
            spec=EpisodeSpec(suite="sides", task="lift", seed=1_000_000),
            instruction="lift it",
            success=True,
            failure=None,
            num_steps=3,
            num_decisions=1,
            sum_reward=1.0,
            max_reward=1.0,
            policy_version=1,
        ),
    ),
    n_action_steps=None,
    eval_s=1.0,
    steps_per_s=3.0,
    frames_per_s=1.0,
    expert_usage={},
)


class Called:
    """Arguments that the command line passed to the training loop."""

    config: RunConfig
    run: RunFolder
    error: BaseException | None = None
    number: int | None = None


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> Called:
    """Recipes, loop and report as far as the command line knows them."""
    called = Called()

    def train(config: RunConfig, run: RunFolder) -> tuple[Evaluation, dict[str, Evaluation]]:
        called.config, called.run = config, run
        policy = run.checkpoint(1) / PRETRAINED
        policy.mkdir(parents=True, exist_ok=True)
        (policy / "config.json").write_text("{}")
        if called.error is not None:
            raise called.error
        if called.number is not None:
            signal.raise_signal(called.number)
        with run.phase("update") as figures:
            figures["samples_per_s"] = 250.0
        return EVALUATION, {}

    monkeypatch.setattr("agent.recipes.RECIPES", {"tiny": tiny, "large": tiny})

    @contextmanager
    def ready(config: RunConfig, run: RunFolder) -> Generator[Callable[[], tuple[Evaluation, dict[str, Evaluation]]]]:
        check_config(config)
        yield partial(train, config, run)

    monkeypatch.setattr("agent.training.loop.ready", ready)
    monkeypatch.setattr("agent.report.render.write_report", lambda root: root / "report.html")
    return called


def failing(args: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit status and error text of a command that fails."""
    with pytest.raises(SystemExit) as exit_:
        cli.main(args)
    assert isinstance(exit_.value.code, int)
    return exit_.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "options"),
    [
        (Collect, {"out", "world_python"}),
        (Train, {"out", "resume", "world_python"}),
        (Data, {"data", "reading", "every_frame"}),
        (
            Eval,
            {"policy", "out", "controls", "videos", "data", "cameras", "cache", "server", "adapter"}
            | {"without_episodes", "with_failed"},
        ),
        (Experts, {"policy", "out", "ablate"}),
        (
            ActingConfig,
            {"world", "world_python", "device", "tasks", "variations", "episodes", "n_action_steps", "dtype"}
            | {"num_worlds"},
        ),
        (Scale, {"out", "estimate"}),
        (Plan, {"memory", "gpu", "models", "world", "batch_sizes"}),
        (
            Drive,
            {
                "policy",
                "robot",
                "instruction",
                "seconds",
                "record",
                "world",
                "world_python",
                "task",
                "seed",
                "variation",
            }
            | {"dtype"},
        ),
        (Report, {"run"}),
    ],
)
def test_no_command_has_other_options_than_these(command: type[DataclassInstance], options: set[str]) -> None:
    """Whatever else a run needs is a field of its recipe's config."""
    assert {f.name for f in dataclasses.fields(command)} == options


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from agent.cli import main; main(['--help']); "
        "print(sorted({'torch', 'mujoco', 'ray', 'scipy', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.startswith("usage: llamarm COMMAND")
    assert out.splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_each_commands_file_has_its_options_and_run(command: str) -> None:
    module = import_module(f"agent.commands.{command}")
    options = getattr(module, command.capitalize())
    assert dataclasses.is_dataclass(options)
    assert options.__doc__
    assert list(get_type_hints(module.run).items()) == [("args", list[str]), ("return", type(None))]


def test_every_command_is_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main([])
    text = capsys.readouterr().out
    assert all(f"  {command} " in text for command in cli.COMMANDS)


def test_train_passes_the_recipe_with_the_command_lines_changes(called: Called, tmp_path: Path) -> None:
    cli.main(
        ["train", "tiny", "--out", str(tmp_path / "run"), "--seed", "7", "--demonstrations.tasks", "lift", "stack"]
    )
    assert called.config.seed == 7
    assert called.config.optimiser.learning_rate == 0.5
    assert called.config.demonstrations.tasks == ("lift", "stack")
    record = RunFolder(tmp_path / "run").record
    assert record["config"]["seed"] == 7
    assert record["sessions"][0]["outcome"] == "finished"
    assert record["sessions"][0]["command"][:3] == ["llamarm", "train", "tiny"]


def test_train_prints_the_table_figures_and_folder(
    called: Called, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(["train", "tiny", "--out", str(tmp_path / "run")])
    said = capsys.readouterr()
    assert said.err.splitlines() == [
        "llamarm train: trains in run",
        f"To serve it to other programs: llamarm serve {tmp_path / 'run'}",
    ]
    lines = said.out.splitlines()
    assert any("lift" in line and "100.0 %" in line for line in lines)
    assert any(line.startswith("update: ") and line.endswith("samples_per_s 250") for line in lines)
    assert lines[-1] == str(called.run.root)


def test_ctrl_c_prints_the_command_that_resumes(
    called: Called, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    called.error = KeyboardInterrupt()
    status, error = failing(["train", "tiny", "--out", str(tmp_path / "my run"), "--seed", "7"], capsys)
    assert status == 130
    assert f"llamarm train tiny --out '{tmp_path}/my run' --seed 7 --resume" in error
    called.error = None
    cli.main(["train", "tiny", "--out", str(tmp_path / "my run"), "--seed", "7", "--resume"])
    assert [s["outcome"] for s in RunFolder(tmp_path / "my run").record["sessions"]] == ["interrupted", "finished"]


@pytest.mark.usefixtures("called")
def test_a_misspelt_name_gets_a_suggestion_and_a_list(capsys: pytest.CaptureFixture[str]) -> None:
    expected = {
        ("trian", "tiny"): "command 'trian' does not exist, did you mean 'train'? There are: doctor, data",
        ("train", "tinny"): "recipe 'tinny' does not exist, did you mean 'tiny'? There are: tiny, large",
        ("eval", "expert", "--world", "tabeltop", "--out", "x"): "did you mean 'tabletop'?",
        ("eval", "expert", "--tasks", "lfit", "--out", "x"): "task 'lfit' does not exist, did you mean 'lift'?",
        ("train", "tiny", "--out", "x", "--optimizer.learning-rate", "1"): "--optimiser.learning-rate",
        ("eval", "expert", "--epsiodes", "3"): "--episodes",
    }
    for args, text in expected.items():
        status, error = failing(list(args), capsys)
        assert status == 2
        assert text in error, args
        assert "Traceback" not in error


@pytest.mark.usefixtures("called")
def test_train_without_a_recipe_lists_the_recipes(capsys: pytest.CaptureFixture[str]) -> None:
    for args, status in ((["train"], 2), (["collect", "--help"], 0)):
        with pytest.raises(SystemExit) as exit_:
            cli.main(args)
        assert exit_.value.code == status
        assert "  tiny   A run for tests." in capsys.readouterr().out


@pytest.mark.usefixtures("called")
def test_a_second_run_in_the_same_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["train", "tiny", "--out", str(tmp_path / "run")])
    status, error = failing(["train", "tiny", "--out", str(tmp_path / "run")], capsys)
    assert status == 2
    assert "already holds a run" in error


def test_a_value_error_that_is_no_user_error_keeps_its_traceback(called: Called, tmp_path: Path) -> None:
    called.error = ValueError("operands could not be broadcast")
    with pytest.raises(ValueError, match="broadcast"):
        cli.main(["train", "tiny", "--out", str(tmp_path / "run")])
    assert "failed: ValueError" in RunFolder(tmp_path / "run").record["sessions"][0]["outcome"]


def test_help_and_version_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["--version"])
    assert capsys.readouterr().out.startswith("llamarm 0.")
    cli.main(["help"])
    assert capsys.readouterr().out.startswith("usage: llamarm COMMAND")
    for args in (["help", "compare"], ["compare", "-h"]):
        with pytest.raises(SystemExit) as exit_:
            cli.main(args)
        assert exit_.value.code == 0
        assert "usage: llamarm compare" in capsys.readouterr().out


@pytest.mark.usefixtures("nothing_ignored")
@pytest.mark.parametrize(("number", "expected"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_sigterm_stops_like_ctrl_c(
    number: signal.Signals, expected: int, called: Called, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(number)
    called.number = number
    status, error = failing(["train", "tiny", "--out", str(tmp_path / "run")], capsys)
    assert status == expected
    assert f"Stopped. To go on: llamarm train tiny --out {tmp_path}/run --resume" in error
    assert RunFolder(tmp_path / "run").record["sessions"][0]["outcome"] == "interrupted"
    assert signal.getsignal(number) is before


def test_an_unwritable_path_is_reported_in_one_line(
    called: Called, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    del called
    (tmp_path / "file").write_text("")
    status, error = failing(["train", "tiny", "--out", str(tmp_path / "file" / "run")], capsys)
    assert status == 2
    assert error == f"llamarm: Not a directory: {tmp_path}/file/run; name another folder\n"


@pytest.mark.parametrize(
    "command", [("train", "tiny"), ("collect", "tabletop", "--workers", "0"), ("eval", "expert", "--tasks", "lift")]
)
def test_a_path_where_no_folder_can_be_made_is_reported_in_one_line(
    command: tuple[str, ...], called: Called, capsys: pytest.CaptureFixture[str]
) -> None:
    del called
    status, error = failing([*command, "--out", "/proc/none/run"], capsys)
    assert status == 2
    assert error.startswith("llamarm: /proc/none/run")
    assert error.endswith(" cannot be made: /proc/none cannot hold folders; name another\n")
    assert error.count("\n") == 1


def test_two_tables_of_models_have_their_own_rows(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["plan", "--models", "nano", "llama3.2_1b", "gemma_2b"])
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    named = [row[:2] for row in rows if row and row[0]]
    models = [["nano", "1.81 M"], ["llama3.2_1b", "1.25 B"], ["gemma_2b", "2.52 B"]]
    assert [name for name, _ in named] == [name for name, _ in models] * 2
    assert named[:3] == named[3:], "each beside its own number of parameters"
    assert named[1:3] == models[1:]


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("shown", ["plan --models nano", "help", "train sft_tiny --help"])
def test_a_closed_pipe_loses_no_result_and_prints_no_traceback(shown: str, unbuffered: str) -> None:
    """Tables by rich and text by print, also where Python keeps no buffer, as in many containers."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "agent.cli", *shown.split()]
    path = os.pathsep.join(filter(None, sys.path))
    environment = os.environ | {"PYTHONPATH": path, "PYTHONUNBUFFERED": unbuffered}
    ran = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, env=environment, check=False)
    os.close(writing)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_a_closed_standard_output_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    cli.main(["help"])
