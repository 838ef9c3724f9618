"""Unmodified vla-eval runs our worlds by import string; skipped where vla_eval, which is no dependency, is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from serving import EXECUTE_STEPS, served
from sides_policy import STATISTICS, sides_model
from test_foreign_policies import WORLD, evaluated

from benchmarks.campaign.sides import SPEC
from vla_model.inputs.processor import Processor
from vla_model.policy import VLAPolicy

vla_eval = pytest.importorskip("vla_eval", reason="vla_eval is not installed")


def test_vla_evals_runner_has_the_episodes_and_outcomes_of_llamarm_eval(tmp_path: Path) -> None:
    processor = Processor.from_statistics(SPEC, STATISTICS, instruction_length=24)
    params = {"world": WORLD, "tasks": ["left", "right"]}
    config = {
        "render": "cpu",
        "benchmarks": [
            {"benchmark": "agent.serve.benchmark:Benchmark", "episodes_per_task": 3, "params": params},
        ],
    }
    with served(VLAPolicy(sides_model(instruction_length=24), processor)) as url:
        vla_eval.run(config, server_url=f"{url}/vla-eval", output_dir=str(tmp_path / "theirs"), docker=False)
        steps = str(EXECUTE_STEPS)
        info = evaluated(url, tmp_path / "ours", "--videos", "0", "--num-worlds", "1", "--n-action-steps", steps)
    (file,) = (tmp_path / "theirs").glob("*_aggregate.json")
    theirs = {
        f"sides/{task['task']}/train/{1_000_000 + episode['episode_id']}": (
            bool(episode["metrics"]["success"]),
            episode["steps"],
        )
        for task in json.loads(file.read_text())["tasks"]
        for episode in task["episodes"]
    }
    ours = {episode["id"]: (episode["success"], episode["num_steps"]) for episode in info["per_episode"]}
    assert len(theirs) == 6
    assert theirs == {id_: ours[id_] for id_ in theirs}
