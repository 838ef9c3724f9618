"""kill -9 within an iteration: the resumed run equals an uninterrupted one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from sides_policy import WillingSidesWorld, save_sides_policy, sides_config

from agent.algorithms.cloning_config import DaggerConfig
from agent.algorithms.ppo_config import PPOConfig
from agent.learning.config import LearnerConfig
from agent.report.curves import read_curves
from agent.runs.run_folder import RunFolder, start_run
from agent.training.config import DemonstrationsConfig, ImproveConfig
from agent.training.demonstrations import fill_dataset
from agent.training.improve import improve
from agent.training.practice import PracticeConfig
from rollout.collect import collect
from rollout.expert import ExpertPolicy

KILLED = """
import os, signal, sys
from pathlib import Path

from test_improve_kill import RunFolder, WillingSidesWorld, config_of, improve, start_run
from agent.learning.learner import Learner

run, kind, first, overlap = RunFolder(Path(sys.argv[1])), sys.argv[2], Path(sys.argv[3]), bool(int(sys.argv[4]))
last = int(sys.argv[5])
config = config_of(kind, first, overlap=overlap)
update, updates = Learner.update, []

def deadly(self, batch, loss):
    if run.checkpoint(last).exists():
        updates.append(0)
    if len(updates) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return update(self, batch, loss)

Learner.update = deadly
improve(config, start_run(run.root, config), WillingSidesWorld)
"""


def config_of(kind: str, first: Path, *, overlap: bool) -> ImproveConfig:
    algorithm: Any = (
        PPOConfig() if kind == "ppo" else DaggerConfig(demonstrations=(str(first.parent / "d"),), updates=4)
    )
    learner = LearnerConfig(batch_size=16, learning_rate=1e-3, warmup_updates=0, ema_decay=0.0)
    practice = PracticeConfig(tasks=("left", "right"), episodes_per_task=4, num_worlds=4)
    return sides_config(algorithm, first, learner, practice=practice, iterations=5, evaluate_every=2, overlap=overlap)


def curves(run: RunFolder, first: int) -> dict[str, list[tuple[int, float]]]:
    """Every curve except times, from that iteration on."""
    return {
        curve.tag: [(step, value) for step, value in zip(curve.steps, curve.values, strict=True) if step >= first]
        for curve in read_curves(run.tensorboard)
        if not curve.tag.startswith("time/")
    }


@pytest.mark.parametrize(
    ("kind", "overlap", "finished"),
    [
        ("ppo", False, 2),
        pytest.param("dagger", False, 2, marks=pytest.mark.long),
        ("ppo", True, 2),
        ("dagger", True, 2),
        pytest.param("ppo", True, 1, marks=pytest.mark.long),
    ],
)
def test_a_run_killed_within_an_iteration_resumes_to_identical_numbers(
    kind: str, overlap: bool, finished: int, tmp_path: Path
) -> None:
    first = save_sides_policy(tmp_path / "first")
    world = WillingSidesWorld(4)
    demonstrations = DemonstrationsConfig(tasks=("left", "right"), episodes_per_task=2)
    expert = ExpertPolicy(world)
    fill_dataset(demonstrations, world, tmp_path / "d", lambda s: collect(expert, world, s, all_frames=True), {})
    config = config_of(kind, first, overlap=overlap)
    straight = start_run(tmp_path / "straight", config)
    improve(config, straight, WillingSidesWorld)
    killed = tmp_path / "killed"
    # A sum over two threads is rounded otherwise than over one.
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    environment = (
        os.environ
        | threads
        | {"PYTHONPATH": os.pathsep.join((str(Path(__file__).parent), str(Path(__file__).parents[1])))}
    )
    command = [sys.executable, "-c", KILLED, str(killed), kind, str(first), str(int(overlap)), str(finished)]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert process.returncode == -signal.SIGKILL, process.stderr
    last = RunFolder(killed).last_checkpoint()
    assert last is not None
    assert int(last.name) == finished, "the iteration in which it was killed left no checkpoint"
    resumed = start_run(killed, config, resume=True)
    improve(config, resumed, WillingSidesWorld)
    expected = curves(straight, finished + 1)
    assert {step for step, _ in expected["practice/success"]} == set(range(finished + 1, 6))
    assert curves(resumed, finished + 1) == expected
