"""Collecting and evaluating on Meta-World by the commands that a user types, small.

Skipped where `make metaworld` has not built its interpreter.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent import cli
from envs.suites.metaworld.world import INTERPRETER
from rollout.dataset.read import DatasetReader

try:
    INTERPRETER.python()
except ValueError as error:
    pytest.skip(str(error), allow_module_level=True)

TASKS = ("drawer-close-v3", "push-v3")


def test_collect_with_a_worlds_name_records_demonstrations_and_continues(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "demos"
    command = ["collect", "metaworld-mt10", "--out", str(root), "--workers", "0", "--num-worlds", "2"]
    cli.main([*command, "--tasks", TASKS[0], "--episodes-per-task", "1"])
    assert "drawer-close-v3: 1 episode" in capsys.readouterr().out
    cli.main([*command, "--tasks", *TASKS, "--episodes-per-task", "1"])
    rows = DatasetReader(root).episodes
    assert [row["spec_id"] for row in rows] == [f"metaworld/{task}/train/0" for task in TASKS]
    assert {row["success"] for row in rows} == {True}
    assert rows[1]["tasks"] == ["Push the puck to a goal"]


def test_the_expert_is_evaluated_by_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path), "--world", "metaworld-mt50", "--tasks", *TASKS, "--videos", "0"]
    cli.main(["eval", "expert", *out, "--episodes", "1", "--num-worlds", "2"])
    info = json.loads((tmp_path / "eval_info.json").read_text())
    assert [row["pc_success"] for row in info["per_task"]] == [100.0, 100.0]
    assert list(info["overall"]["averages"]) == ["easy", "hard", "mean over groups", "mean over tasks"]
    assert "mean over groups" in capsys.readouterr().out
