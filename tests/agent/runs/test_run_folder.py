"""Run folders: one run each, one config each, and a record of every session."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from sides_policy import sides_config

from agent.algorithms.ppo_config import PPOConfig
from agent.learning.config import LearnerConfig
from agent.runs.checks import HOW, none_stands_for
from agent.runs.run_folder import (
    PRETRAINED,
    dataset_of,
    git_state,
    policy_folder,
    run_of,
    start_run,
    versions,
)


@dataclass(frozen=True, kw_only=True)
class Optimiser:
    learning_rate: float = 1e-3
    num_threads: int = field(default=1, metadata=HOW)
    betas: tuple[float, float] = (0.9, 0.95)
    decay: float | None = field(default=None, metadata=none_stands_for(0.998))
    num_updates: int | None = field(default=None, metadata=none_stands_for())


@dataclass(frozen=True, kw_only=True)
class Config:
    tasks: tuple[str, ...] = ("lift", "stack")
    weights: Path = Path("weights")
    seed: int = 0
    optimiser: Optimiser = field(default_factory=Optimiser)


def test_the_resolved_config_is_on_disk_from_the_start(tmp_path: Path) -> None:
    start_run(tmp_path / "run", Config())
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["config"] == {
        "tasks": ["lift", "stack"],
        "weights": "weights",
        "seed": 0,
        "optimiser": {
            "learning_rate": 1e-3,
            "num_threads": 1,
            "betas": [0.9, 0.95],
            "decay": None,
            "num_updates": None,
        },
    }


def test_a_folder_with_a_run_or_other_files_is_not_overwritten(tmp_path: Path) -> None:
    start_run(tmp_path / "run", Config()).dataset.mkdir()
    with pytest.raises(ValueError, match="already holds a run; --resume"):
        start_run(tmp_path / "run", Config())
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("cat")
    with pytest.raises(ValueError, match="not empty and holds no run"):
        start_run(tmp_path / "photos", Config())


def test_a_run_without_results_may_be_replaced(tmp_path: Path) -> None:
    start_run(tmp_path / "run", Config())
    assert start_run(tmp_path / "run", Config(seed=1)).record["config"]["seed"] == 1


def test_resuming_with_another_config_is_refused_with_the_differences(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no run in"):
        start_run(tmp_path / "run", Config(), resume=True)
    start_run(tmp_path / "run", Config()).dataset.mkdir()
    assert start_run(tmp_path / "run", Config(), resume=True).root == tmp_path / "run"
    other = replace(Config(), optimiser=Optimiser(learning_rate=0.1), seed=1)
    with pytest.raises(ValueError, match=r"optimiser\.learning_rate was 0\.001, now 0\.1; seed was 0, now 1"):
        start_run(tmp_path / "run", other, resume=True)


def test_a_run_without_results_may_resume_with_another_config(tmp_path: Path) -> None:
    run = start_run(tmp_path / "run", Config())
    with run.session(["llamarm"]):
        start_run(run.root, Config(seed=1), resume=True)
    assert run.record["config"]["seed"] == 1
    assert run.record["sessions"][0]["outcome"] == "finished"
    run.dataset.mkdir()
    with pytest.raises(ValueError, match="seed was 1, now 0"):
        start_run(run.root, Config(), resume=True)


def test_how_a_run_is_computed_may_change_when_it_is_resumed(tmp_path: Path) -> None:
    start_run(tmp_path / "run", Config())
    resumed = start_run(tmp_path / "run", replace(Config(), optimiser=Optimiser(num_threads=2)), resume=True)
    assert resumed.record["config"]["optimiser"]["num_threads"] == 2


def test_a_recorded_number_that_is_now_derived_may_be_left_out_when_resuming(tmp_path: Path) -> None:
    recorded = Config(optimiser=Optimiser(decay=0.998, num_updates=3000))
    run = start_run(tmp_path / "run", recorded)
    run.dataset.mkdir()
    with pytest.raises(ValueError, match=r"optimiser\.num_updates was 3000, now 4000"):
        start_run(run.root, Config(optimiser=Optimiser(num_updates=4000)), resume=True)
    assert start_run(run.root, Config(), resume=True).record["config"]["optimiser"]["num_updates"] is None
    other = start_run(tmp_path / "other", Config(optimiser=Optimiser(decay=0.9)))
    other.dataset.mkdir()
    with pytest.raises(ValueError, match=r"optimiser\.decay was 0\.9, now None"):
        start_run(other.root, Config(), resume=True)


def test_a_run_of_a_version_without_a_field_resumes_with_its_default_only(tmp_path: Path) -> None:
    run = start_run(tmp_path / "run", Config())
    run.dataset.mkdir()
    record = run.record
    del record["config"]["seed"], record["config"]["optimiser"]["learning_rate"]
    run.record_file.write_text(json.dumps(record))
    with pytest.raises(ValueError, match="seed was None, now 7"):
        start_run(tmp_path / "run", Config(seed=7), resume=True)
    start_run(tmp_path / "run", Config(), resume=True)
    assert run.record["config"]["seed"] == 0


def test_a_run_of_a_version_with_a_removed_option_resumes_if_it_was_off(tmp_path: Path) -> None:
    config = sides_config(PPOConfig(), tmp_path, LearnerConfig())
    run = start_run(tmp_path / "run", config)
    run.dataset.mkdir()
    record = run.record
    record["config"]["algorithm"]["surrogate"]["perception"] = {"iterations": 0, "updates": 100}
    run.record_file.write_text(json.dumps(record))
    start_run(run.root, config, resume=True)
    assert "perception" not in run.record["config"]["algorithm"]["surrogate"]
    record["config"]["algorithm"]["surrogate"]["perception"]["iterations"] = 3
    run.record_file.write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"surrogate\.perception was .*'iterations': 3"):
        start_run(run.root, config, resume=True)


def test_a_config_with_a_value_that_json_lacks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="plain values"):
        start_run(tmp_path / "run", replace(Config(), tasks={"lift"}))
    assert not (tmp_path / "run").exists()


def test_every_session_records_its_command_duration_and_outcome(tmp_path: Path) -> None:
    run = start_run(tmp_path / "run", Config())

    def stopped_by_the_user() -> None:
        with run.session(["llamarm", "train", "tiny"]):
            assert run.record["sessions"][0]["outcome"] == "running", "a killed process leaves this"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped_by_the_user()
    with run.session(["llamarm", "train", "tiny", "--resume"]):
        pass
    first, second = run.record["sessions"]
    assert (first["outcome"], second["outcome"]) == ("interrupted", "finished")
    assert second["command"][-1] == "--resume"
    assert 0 <= first["wall_s"] < 60
    assert first["peak_memory_gb"] > 0.01
    assert first["machine"]["cores"] >= 1
    assert first["machine"]["cpu"]
    assert first["versions"]["torch"] == versions()["torch"]


def test_the_commit_is_recorded_in_a_checkout() -> None:
    state = git_state()
    if state is None:
        pytest.skip("not run from a checkout")
    assert len(state["commit"]) == 40


def test_a_policy_is_found_in_its_folder_its_checkpoint_and_its_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start_run(tmp_path / "run", Config())
    assert run.last_checkpoint() is None
    with pytest.raises(ValueError, match="neither a policy"):
        policy_folder(run.root)
    for step in (90, 1000200, 120):
        folder = run.checkpoint(step) / "pretrained_model"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
    assert run.checkpoint(90).name == "000090"
    assert run.last_checkpoint() == run.checkpoint(1000200)
    newest = run.checkpoint(1000200) / "pretrained_model"
    assert policy_folder(run.root) == policy_folder(run.checkpoint(1000200)) == policy_folder(newest) == newest
    killed = run.best / ".pretrained_model.previous"  # what a save that was killed leaves of the best policy
    killed.mkdir(parents=True)
    (killed / "config.json").write_text("{}")
    assert policy_folder(run.root) == run.best / "pretrained_model", "where load_policy finds the previous one"
    assert run_of(run.best / "pretrained_model") == run
    monkeypatch.chdir(newest)
    assert policy_folder(".") == Path()


def test_the_run_of_a_checkpoint_and_of_the_best_policy_is_found(tmp_path: Path) -> None:
    run = start_run(tmp_path / "run", Config())
    for policy in (run.root, run.checkpoint(7), run.checkpoint(7) / PRETRAINED, run.best, run.best / PRETRAINED):
        policy.mkdir(parents=True, exist_ok=True)
        assert run_of(policy) == run
        assert dataset_of(policy) == run.dataset
    (alone := tmp_path / "alone").mkdir()
    assert run_of(alone) is None
    assert dataset_of(alone) == alone / "dataset"
    assert run_of(run.root / "expert") is None, "a word that is no path is not of the run that it was typed in"


def test_phases_are_recorded_one_by_one_finished_or_not(tmp_path: Path) -> None:
    run = start_run(tmp_path / "run", Config())
    with run.phase("collect"):
        pass

    def broken() -> None:
        with run.phase("update"):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        broken()
    assert [phase["name"] for phase in run.record["phases"]] == ["collect", "update"]
    assert all(0 <= phase["wall_s"] < 60 for phase in run.record["phases"])
