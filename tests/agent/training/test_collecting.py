"""OverlappedCollector: an iteration's episodes are collected while learning from the previous one's."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from sides_policy import WillingSidesWorld, save_sides_policy, sides_config, sides_model, sides_processor, sides_specs

from agent.algorithms.ppo_config import PPOConfig
from agent.learning.config import LearnerConfig
from agent.report.curves import read_curves
from agent.runs.run_folder import start_run
from agent.training.collecting import OverlappedCollector, SyncCollector
from agent.training.improve import improve
from agent.training.practice import PracticeConfig
from rollout.types import RunEpisodes, Trajectory
from rollout.workers.workers import Workers, WorkersConfig
from vla_model.policy import VLAPolicy

WEIGHTS = sides_model().state_dict()


@pytest.fixture(params=[0, 1], ids=["here", "ray"])
def actors(request: pytest.FixtureRequest) -> Iterator[Workers]:
    policy = VLAPolicy(sides_model(), sides_processor())
    with Workers(partial(WillingSidesWorld, 4), lambda _: policy, WorkersConfig(workers=request.param)) as workers:
        yield workers


def two_episodes(run: RunEpisodes, iteration: int) -> list[Trajectory]:
    del iteration
    return list(run(sides_specs(1)))


def versions(episodes: list[Trajectory]) -> set[int]:
    assert len(episodes) == 2
    return {t.policy_version for t in episodes}


def test_with_overlap_episodes_are_one_version_old_after_the_first_iteration(actors: Workers) -> None:
    ahead = OverlappedCollector(actors, two_episodes, iterations=4, acted=None)
    assert [versions(ahead.episodes(i, WEIGHTS)) for i in range(4)] == [{0}, {0}, {1}, {2}]
    ahead.close()


def test_without_overlap_episodes_have_the_learners_version() -> None:
    policy = VLAPolicy(sides_model(), sides_processor())
    with Workers(partial(WillingSidesWorld, 4), lambda _: policy, WorkersConfig(workers=0)) as workers:
        in_turn = SyncCollector(workers, two_episodes)
        assert [versions(in_turn.episodes(i, WEIGHTS)) for i in range(3)] == [{0}, {1}, {2}]
        assert in_turn.acted is None


class Pretended:
    """Workers that collect nothing and record published weights."""

    def __init__(self) -> None:
        self.published: list[tuple[int, float]] = []

    def publish(self, version: int, weights: dict[str, Any]) -> None:
        self.published.append((version, float(weights["w"])))

    def close(self) -> None:
        self.published.append((-1, 0.0))


def test_with_overlap_the_next_episodes_use_the_weights_from_before_the_update() -> None:
    actors: Any = Pretended()
    free, collected = threading.Event(), []

    def collect(run: RunEpisodes, iteration: int) -> list[Trajectory]:
        del run
        if iteration:
            assert free.wait(10)
        collected.append((iteration, actors.published[-1]))
        return []

    weights = {"w": torch.tensor(1.0)}
    ahead = OverlappedCollector(actors, collect, iterations=3, acted=None)
    ahead.episodes(0, weights)  # returns, though the episodes of iteration 1 wait
    weights["w"] += 1.0  # the learner learns in place
    assert ahead.acted == {"w": torch.tensor(1.0)}
    free.set()
    ahead.episodes(1, weights)
    ahead.episodes(2, weights)
    assert collected == [(0, (0, 1.0)), (1, (0, 1.0)), (2, (1, 2.0))], "nothing is collected for iteration 3"
    ahead.close()
    assert actors.published == [(0, 1.0), (1, 2.0), (2, 2.0), (-1, 0.0)]


def test_a_resumed_run_collects_with_the_recorded_acting_weights() -> None:
    actors: Any = Pretended()
    ahead = OverlappedCollector(actors, lambda *_: [], iterations=9, acted={"w": torch.tensor(5.0)})
    ahead.episodes(7, {"w": torch.tensor(6.0)})
    assert actors.published == [(6, 5.0), (7, 6.0)]
    ahead.close()


def test_closing_abandons_pending_episodes(actors: Workers) -> None:
    begun = threading.Event()

    def endless(run: RunEpisodes, iteration: int) -> list[Trajectory]:
        found = []
        while iteration:
            found += run(sides_specs(1))
            begun.set()
        return found

    ahead = OverlappedCollector(actors, endless, iterations=2, acted=None)
    ahead.episodes(0, WEIGHTS)
    assert begun.wait(60)
    ahead.close()


def test_a_run_with_overlap_logs_staleness_and_saves_acting_weights(tmp_path: Path) -> None:
    learner = LearnerConfig(batch_size=16, learning_rate=1e-3, warmup_updates=0, ema_decay=0.0)
    practice = PracticeConfig(tasks=("left", "right"), episodes_per_task=4, num_worlds=4)
    first = save_sides_policy(tmp_path / "first")
    found = {}
    for overlap in (False, True):
        config = sides_config(PPOConfig(), first, learner, practice=practice, iterations=3, overlap=overlap)
        run = start_run(tmp_path / str(overlap), config)
        improve(config, run, WillingSidesWorld)
        (ages,) = [c.values for c in read_curves(run.tensorboard) if c.tag == "weights/age_max"]
        found[overlap] = ages, (run.checkpoint(3) / "acted.safetensors").exists()
    assert found == {False: ((0.0, 0.0, 0.0), False), True: ((0.0, 1.0, 1.0), True)}
