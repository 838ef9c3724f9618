"""Training on recorded drives."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from pathlib import Path

from test_sim_robot import ExpertChunks

from agent.learning.config import LearnerConfig
from agent.robot.agent import Agent
from agent.robot.robots.sim_robot import SimRobot
from agent.runs.run_folder import PRETRAINED, RunFolder
from agent.training.config import RunConfig
from agent.training.loop import learn
from benchmarks.simulated import SimulatedClock, SimulatedInference
from envs.make import make_world
from envs.types import EpisodeSpec
from rollout.dataset.batches import TrainingData
from rollout.distributed import Process
from vla_model.policy import VLAPolicy
from vla_model.sizes import ModelConfig


def test_recorded_drives_can_be_trained_on_without_conversion(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    clock = SimulatedClock()
    make_inference = partial(SimulatedInference, clock=clock, latency_s=lambda n: 0.0)
    with closing(make_world("tabletop")) as world:
        for seed in range(2):
            robot = SimRobot(world, EpisodeSpec(suite="tabletop", task="reach", seed=seed), clock=clock)
            agent = Agent(ExpertChunks(world), robot, clock=clock, make_inference=make_inference)
            assert agent.run("touch it", 30.0, record=run.dataset).success
    data = TrainingData([run.dataset], failed="excluded")
    assert [episode["variation"] for episode in data.episodes] == ["drive", "drive"]
    model = ModelConfig(history_length=2, history_stride=3)
    config = RunConfig(model=model, learner=LearnerConfig(batch_size=8, num_updates=2, warmup_updates=1))
    reports: list[dict[str, object]] = []
    learn(config, run, Process(interrupted=lambda: False, report=lambda **news: reports.append(news)))
    assert run.last_checkpoint() == run.checkpoint(2)
    assert len(reports) == 2
    policy = VLAPolicy.from_pretrained(run.checkpoint(2) / PRETRAINED)
    with closing(make_world("tabletop")) as world:
        robot = SimRobot(world, EpisodeSpec(suite="tabletop", task="reach", seed=2), clock=clock)
        agent = Agent(
            policy, robot, clock=clock, make_inference=partial(SimulatedInference, clock=clock, latency_s=late)
        )
        assert agent.run("touch it", 1.0).num_steps == 10
    (episode,) = policy._episodes.values()
    assert episode.history.steps == [2, 4, 6, 8], "decisions of two periods each, back to 6 steps before the last"


def late(number: int) -> float:
    """The latency is somewhat more than a period."""
    del number
    return 0.15
