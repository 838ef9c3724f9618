"""--world-python: the interpreter of a world of one's own, which the world's name then holds."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from agent import cli
from agent.commands.shared.acting import ActingConfig
from agent.recipes import RECIPES
from agent.training.config import ImproveConfig, RunConfig
from rollout.dataset.read import DatasetReader

WORLD = "corridor:corridors"
HERE = Path(sys.executable)


def test_a_runs_config_holds_the_interpreter_in_the_worlds_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "python").touch()
    monkeypatch.chdir(tmp_path)
    trained = RECIPES["sft_tiny"]()
    assert isinstance(trained, RunConfig)
    with pytest.raises(ValueError, match="another interpreter runs a world MODULE:FUNCTION, got 'tabletop'"):
        trained.in_interpreter(HERE)
    assert trained.in_interpreter(None) == trained
    acting = ActingConfig(world=WORLD, world_python=Path("python"))
    assert acting.named_world == f"{WORLD}@{tmp_path}/python", "relative to the current folder"
    with pytest.raises(ValueError, match="is the interpreter of a MODULE:FUNCTION; name that with --world"):
        _ = ActingConfig(world_python=HERE).named_world
    improved = RECIPES["rft_tabletop"]()
    assert isinstance(improved, ImproveConfig)
    own = replace(improved, practice=replace(improved.practice, world=WORLD)).in_interpreter(HERE)
    assert own.practice.world == f"{WORLD}@{HERE}"


def test_the_expert_of_a_world_in_another_interpreter_is_collected_and_evaluated(tmp_path: Path) -> None:
    named = ["--world-python", str(HERE), "--workers", "0"]
    out = tmp_path / "demos"
    cli.main(["collect", WORLD, "--out", str(out), "--episodes-per-task", "3", *named])
    assert [row["success"] for row in DatasetReader(str(out)).episodes] == [True] * 3
    few = ["--episodes", "2", "--videos", "0"]
    cli.main(["eval", "expert", "--world", WORLD, *few, "--out", str(tmp_path / "eval"), *named])
    info = json.loads((tmp_path / "eval" / "eval_info.json").read_text())
    assert (info["protocol"]["suites"], info["overall"]["n_episodes"]) == (["corridor"], 2)


def test_a_missing_interpreter_is_refused_before_a_folder_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ["train", "sft_tiny", "--demonstrations.world", WORLD, "--world-python", "/nowhere/python"]
    with pytest.raises(SystemExit, match="2"):
        cli.main([*run, "--out", str(tmp_path / "run")])
    assert "the interpreter of world 'corridor:corridors' does not exist: /nowhere/python" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
