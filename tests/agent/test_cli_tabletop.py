"""The commands that need a world, on the real one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agent import cli


def evaluated(folder: Path, *args: str) -> dict[str, Any]:
    """What `llamarm eval` writes."""
    cli.main(["eval", *args, "--out", str(folder), "--num-worlds", "2"])
    return json.loads((folder / "eval_info.json").read_text())


def test_eval_of_the_expert_writes_results_controls_and_a_film(tmp_path: Path) -> None:
    info = evaluated(tmp_path, "expert", "--tasks", "reach", "press_button", "--episodes", "2", "--controls")
    assert info["overall"]["n_episodes"] == 4
    assert info["overall"]["pc_success"] == 100.0
    assert set(info["controls"]) == {"shuffled instructions", "black frames"}
    assert info["controls"]["black frames"]["pc_success"] == 100.0, "this expert reads the simulator"
    assert sorted(path.name for path in (tmp_path / "films").iterdir()) == [
        "press_button-train-1000000-success.mp4",
        "reach-train-1000000-success.mp4",
    ]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose episodes ran in a Ray worker."""
    root = tmp_path_factory.mktemp("trained") / "run"
    cli.main(["train", "sft_tiny", "--workers", "1", "--evaluation.controls", "False", "--out", str(root)])
    return root


def test_train_collects_and_evaluates_in_a_worker(trained: Path) -> None:
    record = json.loads((trained / "run.json").read_text())
    assert record["config"]["rollout"]["workers"] == 1
    assert record["sessions"][0]["outcome"] == "finished"
    assert [phase["name"] for phase in record["phases"]] == ["collect", "update", "evaluate"]
    assert record["phases"][0]["workers_replaced"] == 0
    info = json.loads((trained / "eval_info.json").read_text())
    assert info["overall"]["n_episodes"] == 2
    assert "<html" in (trained / "report.html").read_text()


def test_eval_runs_on_warp_the_expert_here_and_a_policy_in_a_worker(trained: Path, tmp_path: Path) -> None:
    on_warp = ("--device", "warp", "--tasks", "reach", "--films", "0")
    expert = evaluated(tmp_path / "expert", "expert", *on_warp, "--episodes", "2")["overall"]
    assert (expert["n_episodes"], expert["pc_success"]) == (2, 100.0)
    policy = evaluated(tmp_path / "policy", str(trained), *on_warp, "--episodes", "1", "--workers", "1")["overall"]
    assert policy["n_episodes"] == 1
