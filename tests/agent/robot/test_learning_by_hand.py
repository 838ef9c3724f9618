"""Training on a person's corrections."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from test_sim_robot import ExpertChunks

from agent.algorithms.cloning_config import DaggerConfig
from agent.algorithms.method import Context
from agent.learning.config import LearnerConfig
from agent.learning.learner import Learner
from agent.robot.agent import Agent
from agent.robot.drive import Outcome
from agent.robot.robots.sim_robot import SimRobot
from agent.robot.types import Reading
from agent.robot.watch import Operator
from agent.runs.run_folder import RunFolder
from agent.training.config import RunConfig
from agent.training.loop import learn, train
from benchmarks.simulated import SimulatedClock, SimulatedInference
from envs.make import make_world
from envs.types import EpisodeSpec
from rollout.dataset.batches import TrainingData
from rollout.distributed import Process
from vla_model.create import create_policy
from vla_model.sizes import ModelConfig

LEARNER = LearnerConfig(batch_size=8, num_updates=2, warmup_updates=1)


def drive(record: Path, seconds: float, operator: Operator | None = None) -> Outcome:
    clock = SimulatedClock()
    make_inference = partial(SimulatedInference, clock=clock, latency_s=lambda n: 0.0)
    with closing(make_world("tabletop")) as world:
        robot = SimRobot(world, EpisodeSpec(suite="tabletop", task="reach", seed=0), clock=clock)
        agent = Agent(ExpertChunks(world), robot, clock=clock, make_inference=make_inference, operator=operator)
        return agent.run("touch it", seconds, record=record)


class Upwards:
    """An operator who lifts the arm in periods 3 to 7 of the takeover."""

    def __init__(self) -> None:
        self.periods = 0

    def action(self, reading: Reading, rest: NDArray[np.float32]) -> NDArray[np.float32] | None:
        del reading
        self.periods += 1
        return rest + np.eye(7, dtype=np.float32)[2] / 2 if 3 <= self.periods <= 7 else None


def test_corrections_are_cloned_beside_demonstrations_by_sft_and_dagger(tmp_path: Path) -> None:
    run, drives = RunFolder(tmp_path / "run"), tmp_path / "drives"
    drive(run.dataset, 30.0)
    outcome = drive(drives, 1.0, operator=Upwards())
    assert (outcome.success, outcome.num_steps) == (False, 10)
    learn(
        RunConfig(learner=LEARNER, drives=(str(drives),)),
        run,
        Process(interrupted=lambda: False, report=lambda **_: None),
    )
    assert (tmp_path / "drives.cache").exists(), "it was opened to learn from"
    demonstrations = TrainingData([run.dataset])
    model, processor = create_policy(ModelConfig(), demonstrations.world_spec, demonstrations.stats)
    config = DaggerConfig(demonstrations=(str(run.dataset),), drives=(str(drives),), updates=1)
    context = Context(processor=processor, suite="tabletop", run=RunFolder(tmp_path / "d"))
    with closing(Learner(model, LEARNER)) as learner:
        figures = config.method(context).learn(learner, [], 0)
    assert figures["dataset/rows"] == demonstrations.num_rows + 5
    with pytest.raises(ValueError, match="nowhere holds no LeRobot dataset"):
        replace(config, drives=(str(tmp_path / "nowhere"),)).method(context)
    with pytest.raises(ValueError, match="nowhere holds no LeRobot dataset"):
        train(RunConfig(drives=(str(tmp_path / "nowhere"),)), RunFolder(tmp_path / "other"))
    assert not (tmp_path / "other").exists(), "nothing was collected before"
