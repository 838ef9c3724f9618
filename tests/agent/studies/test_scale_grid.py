"""A small grid on the real tabletop: its cells, their budget, and resumption."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from agent.cli import main
from agent.commands import scale as command
from agent.evaluation.config import EvaluationConfig
from agent.learning.config import LearnerConfig
from agent.recipes import RECIPES
from agent.runs.run_folder import RunFolder, check_start
from agent.studies.scale import grid, law
from agent.studies.scale.config import GridConfig, Place, ScaleConfig, held_out_places, places
from agent.studies.scale.grid import Budget, acting_parameters, model_of
from agent.training.config import DemonstrationsConfig, RunConfig
from envs.make import make_world
from rollout.workers.workers import WorkersConfig
from vla_model.create import shape_of
from vla_model.sizes import ModelConfig

RUN = RunConfig(
    demonstrations=DemonstrationsConfig(tasks=("press_button",), num_worlds=2),
    rollout=WorkersConfig(workers=0),
    learner=LearnerConfig(batch_size=4, warmup_updates=2),
    evaluation=EvaluationConfig(episodes_per_task=2, n_action_steps=8, num_worlds=2),
)
GRID = GridConfig(widths=(16, 24), amounts=(1, 2, 3), updates=2, hold_out=("32x3",), held_out_episodes=1)
CONFIG = ScaleConfig(grid=GRID, run=RUN)


def test_places_are_every_width_amount_and_repeat_the_smallest_first() -> None:
    twice = replace(CONFIG, grid=replace(GRID, repeats=2))
    found = places(twice)
    assert len(found) == 2 * 3 * 2
    assert found[:3] == [
        Place(width=16, amount=1, experts=4, seed=0),
        Place(width=16, amount=1, experts=4, seed=1),
        Place(width=24, amount=1, experts=4, seed=0),
    ]
    with pytest.raises(ValueError, match="two widths, two amounts and 5 runs"):
        places(replace(CONFIG, grid=replace(GRID, widths=(16,))))
    with pytest.raises(ValueError, match="'big' is not WIDTHxDEMONSTRATIONS"):
        held_out_places(replace(CONFIG, grid=replace(GRID, hold_out=("big",))))
    with pytest.raises(ValueError, match="'0x9' is not WIDTHxDEMONSTRATIONS"):
        held_out_places(replace(CONFIG, grid=replace(GRID, hold_out=("0x9",))))
    with pytest.raises(ValueError, match="'24x3' is in the grid that the fit is made of"):
        held_out_places(replace(CONFIG, grid=replace(GRID, hold_out=("24x3",))))


def test_a_cell_with_the_recipes_width_has_its_model_and_counts_active_parameters() -> None:
    world = make_world("tabletop")
    spec = world.world_spec
    world.close()
    own = shape_of(ModelConfig(), spec)
    nano, more = (
        shape_of(model_of(Place(width=128, amount=1, experts=experts, seed=0), ModelConfig()), spec)
        for experts in (4, 8)
    )
    assert nano.to_dict() == own.to_dict()
    routers = 2 * 4 * 128
    assert acting_parameters(more) - acting_parameters(nano) == routers


def test_a_grid_runs_predicts_held_out_cells_and_resumes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    args = [
        *("--out", str(tmp_path / "grid"), "--widths", "16", "24", "--amounts", "1", "2", "3", "--updates", "2"),
        *("--hold-out", "32x3", "--held-out-episodes", "1"),
    ]
    monkeypatch.setitem(RECIPES, "test", lambda: RUN)
    monkeypatch.setattr(law, "fit_with_bootstrap", lambda cells: fit(cells, samples=5))
    trained: list[str] = []
    train = grid.train

    def interrupted(config: RunConfig, run: RunFolder) -> object:
        trained.append(run.root.name)
        if len(trained) == 3:
            raise KeyboardInterrupt
        return train(config, run)

    monkeypatch.setattr(grid, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        command.run(["test", *args])
    command.run(["test", *args])
    third = "w16-d2-e4-s0"
    assert trained == [
        *("w16-d1-e4-s0", "w24-d1-e4-s0", third),
        *(third, "w24-d2-e4-s0", "w16-d3-e4-s0", "w24-d3-e4-s0", "w32-d3-e4-s0"),
    ]
    found = json.loads((tmp_path / "grid" / "scale.json").read_text())
    assert [cell["amount"] for cell in found["cells"]] == [1, 1, 2, 2, 3, 3]
    assert all(cell["error"] > 0 for cell in found["cells"])
    assert found["held_out"][0]["measured"]["demonstrations"] == 3
    assert {effort["what"] for effort in found["efforts"]} == {"parameters", "demonstrations"}
    assert (tmp_path / "grid" / "scale.png").read_bytes()[:4] == b"\x89PNG"
    datasets = sorted(path.name for path in (tmp_path / "grid" / "demonstrations").iterdir())
    assert [name for name in datasets if not name.endswith(".cache")] == ["1", "2", "3", "held_out"]
    assert "## Runs that were held out" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"grid.updates was 2, now 3"):
        command.run(["test", *args, "--updates", "3"])


fit = law.fit_with_bootstrap


def test_an_estimate_starts_no_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RECIPES, "test", lambda: RUN)
    args = ["--out", str(tmp_path / "grid"), "--widths", "16", "24", "--hours", "0.01", "--estimate"]
    command.run(["test", *args])
    assert capsys.readouterr().out.startswith("collects 200 demonstrations of 1 task; makes ")
    assert not (tmp_path / "grid").exists()


def test_hours_that_are_too_few_are_refused_in_one_line_and_can_be_raised(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RECIPES, "test", lambda: RUN)
    args = ["scale", "test", "--out", str(tmp_path / "grid"), "--widths", "16", "24", "--hours", "1e-9"]
    with pytest.raises(SystemExit):
        main(args)
    ours = [line for line in capsys.readouterr().err.splitlines() if line.startswith("llamarm")]
    assert len(ours) == 1
    assert ours[0].startswith("llamarm: 1e-09 hours are too few: one update of every run takes ")
    check_start(tmp_path / "grid", CONFIG)


def test_the_hours_of_a_budget_are_of_all_updates() -> None:
    budget = Budget(updates=90, seconds_per_update={"a": 10.0, "b": 30.0})
    assert budget.hours == 1.0
