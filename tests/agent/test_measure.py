"""Measuring a policy over several variations: what runs blind, and what is written."""

from __future__ import annotations

from pathlib import Path

from sides_world import Reader, SidesWorld

from agent.eval_info import read_eval_info
from agent.measure import EvaluationConfig, measure
from agent.run_folder import RunFolder


def test_controls_run_the_first_variation_beside_the_policys_own_success_there(tmp_path: Path) -> None:
    config = EvaluationConfig(
        episodes_per_task=2, variations=("near", "far"), films_per_task=0, execute_steps=None, num_worlds=2
    )
    world = SidesWorld(config.num_worlds)
    evaluation, controls = measure(Reader(), world, ("left", "right"), config, RunFolder(tmp_path))
    assert len(evaluation.results) == 8
    assert set(controls) == {"shuffled instructions", "black frames"}
    assert all({r.spec.variation for r in control.results} == {"near"} for control in controls.values())
    written = read_eval_info(tmp_path / "eval_info.json")["controls"]["shuffled instructions"]
    assert written["variations"] == ["near"]
    assert (written["n_episodes"], written["pc_success"]) == (4, 0.0)
    assert (written["policy"]["n_episodes"], written["policy"]["pc_success"]) == (4, 100.0)


def test_a_single_task_has_nothing_to_shuffle(tmp_path: Path) -> None:
    config = EvaluationConfig(episodes_per_task=2, films_per_task=0, execute_steps=None, num_worlds=2)
    _, controls = measure(Reader(), SidesWorld(2), ("left",), config, RunFolder(tmp_path))
    assert set(controls) == {"black frames"}
