"""Metrics in TensorBoard, Trackio and Weights & Biases, each in a run of its own name, continued when resumed."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest

from agent.recipes import ppo_tabletop, sft_tiny
from agent.report.curves import read_curves
from agent.runs.checks import check_config
from agent.runs.run_folder import RunFolder, start_run
from agent.training.trackers import Tracker, check_trackers, metric_log


@pytest.fixture(name="run")
def begun(tmp_path: Path) -> RunFolder:
    return start_run(tmp_path / "run", sft_tiny())


def log_twice(run: RunFolder, *trackers: Tracker) -> None:
    """Two sessions of the run, the second of which continues."""
    for first in (1, 3):
        with metric_log(run, trackers) as log:
            for step in (first, first + 1):
                log.add({"loss/total": 1.0 / step, "learner/samples_per_s": 10.0}, step)


def test_tensorboard_is_the_default_and_the_reports_curves_are_its(run: RunFolder) -> None:
    assert sft_tiny().log_to == ppo_tabletop().log_to == ("tensorboard",)
    log_twice(run, "tensorboard")
    curves = {curve.tag: curve for curve in read_curves(run.tensorboard)}
    assert curves["loss/total"].steps == (1, 2, 3, 4)
    assert curves["loss/total"].values == pytest.approx((1.0, 0.5, 1 / 3, 0.25))


def test_without_a_tracker_nothing_is_written(run: RunFolder) -> None:
    log_twice(run, "none")
    assert not run.tensorboard.exists()
    assert read_curves(run.tensorboard) == []


@pytest.mark.parametrize(
    ("trackers", "message"),
    [
        (("none", "tensorboard"), "log-to is none tensorboard, expected each tracker once, or none alone"),
        (("tensorboard", "tensorboard"), "expected each tracker once"),
        ((), "log-to is empty, expected each tracker once"),
    ],
)
def test_contradicting_trackers_are_refused(trackers: tuple[Tracker, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_trackers(trackers)


@pytest.mark.parametrize("recipe", [sft_tiny, ppo_tabletop])
def test_a_tracker_that_is_not_installed_is_refused_before_any_work(
    recipe: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.training.trackers.find_spec", lambda _: None)
    with pytest.raises(ValueError, match=r"log-to names trackio, .*not installed: pip install 'llamarm\[trackio\]'"):
        check_config(replace(recipe(), log_to=("tensorboard", "trackio")))


def test_trackio_has_a_run_with_every_step_and_a_resumed_one_continues(
    run: RunFolder,
) -> None:
    trackio = pytest.importorskip("trackio")
    log_twice(run, "trackio")
    (tracked,) = trackio.Api().runs("llamarm")
    assert tracked.name.startswith("run-")
    assert tracked.config["demonstrations"]["world"] == "tabletop"
    logs = importlib.import_module("trackio.sqlite_storage").SQLiteStorage.get_logs("llamarm", tracked.name)
    logged = {row["step"]: row["loss/total"] for row in logs if "loss/total" in row}
    assert logged == pytest.approx({1: 1.0, 2: 0.5, 3: 1 / 3, 4: 0.25})


@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb is not installed")
def test_wandb_writes_its_files_into_the_runs_folder(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    log_twice(run, "wandb")
    assert len(list((run.root / "wandb").glob("offline-run-*"))) == 2
