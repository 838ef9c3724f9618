"""The perception phase: what it teaches, what it leaves alone, and that it can be done again."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sides_policy import WillingSidesWorld, sides_model, sides_processor, sides_specs
from sides_rollouts import draw
from torch import Tensor

from agent.algorithms.perception import Perception, PerceptionConfig, _drawn_rows
from agent.learning.learner import Learner, LearnerConfig
from rollout.collect import collect
from rollout.dataset.write import DatasetWriter
from rollout.expert import ExpertPolicy
from rollout.types import Trajectory
from vla_model.model import VLA

CONFIG = PerceptionConfig(iterations=1, updates=20, batch_size=16, learning_rate=3e-3)


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, world = tmp_path_factory.mktemp("demonstrations") / "dataset", WillingSidesWorld(4)
    with DatasetWriter(root, world.world_spec, robot_type="sides") as writer:
        for trajectory in collect(ExpertPolicy(world), world, sides_specs(3), all_frames=True):
            writer.append(trajectory)
    return root


def phase(
    demonstrations: Path,
    trajectories: list[Trajectory],
    *,
    iteration: int = 0,
    history_length: int = 0,
    **changes: object,
) -> tuple[dict[str, float], dict[str, Tensor], Learner[VLA]]:
    config = replace(CONFIG, **changes)
    learner = Learner(sides_model(value_head=True, history_length=history_length), LearnerConfig(ema_decay=0.0))
    with closing(learner):
        told = Perception(config, sides_processor(), demonstrations, seed=1).learn(learner, trajectories, iteration)
    return told, learner.model.state_dict(), learner


@pytest.mark.long
def test_it_learns_where_things_are_in_its_own_frames(demonstrations: Path) -> None:
    trajectories = draw(4)
    before, *_ = phase(demonstrations, trajectories, updates=1)
    after, *_ = phase(demonstrations, trajectories, updates=100)
    last, *_ = phase(demonstrations, trajectories, updates=200)
    assert last["perception/localization"] < after["perception/localization"] < before["perception/localization"]
    assert last["perception/action"] < before["perception/action"]


def test_a_policy_that_looks_back_learns_with_what_it_looked_back_on(demonstrations: Path) -> None:
    trajectories = draw(4, history_length=1)
    before, *_ = phase(demonstrations, trajectories, history_length=1, updates=1)
    after, *_ = phase(demonstrations, trajectories, history_length=1, updates=60)
    assert after["perception/localization"] < before["perception/localization"]


def test_nothing_that_the_policy_did_is_imitated(demonstrations: Path) -> None:
    trajectories = draw(4)
    other = [replace(t, action=-t.action, label=-t.label, success=not t.success) for t in trajectories]
    _, weights, _ = phase(demonstrations, trajectories)
    _, same, _ = phase(demonstrations, other)
    assert all(torch.equal(weights[name], same[name]) for name in weights)


def test_what_the_simulator_says_of_its_own_frames_counts(demonstrations: Path) -> None:
    trajectories = draw(4)
    other = [replace(t, localization=-t.localization) for t in trajectories]
    _, weights, _ = phase(demonstrations, trajectories)
    _, others, _ = phase(demonstrations, other)
    assert any(not torch.equal(weights[name], others[name]) for name in weights)


def test_the_same_iteration_again_gives_the_same_weights_and_another_gives_others(demonstrations: Path) -> None:
    trajectories = draw(4)
    _, first, learner = phase(demonstrations, trajectories)
    _, again, _ = phase(demonstrations, trajectories)
    _, next_one, _ = phase(demonstrations, trajectories, iteration=1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], next_one[name]) for name in first)
    average = learner.average.state_dict()
    assert all(torch.equal(first[name], average[name]) for name in first), "the policy that acts is what was learned"


def test_the_value_head_is_left_alone(demonstrations: Path) -> None:
    _, weights, _ = phase(demonstrations, draw(4))
    begun = sides_model(value_head=True).state_dict()
    assert all(torch.equal(weights[name], begun[name]) for name in weights if name.startswith("value_head."))


def test_an_episode_counts_once_however_long_it_was() -> None:
    episode = np.repeat([0, 1, 2], [90, 9, 1])
    rows = _drawn_rows(episode, 30_000, np.random.default_rng(0))
    np.testing.assert_allclose(np.bincount(episode[rows]), 10_000, rtol=0.03)
    np.testing.assert_allclose(np.bincount(rows)[:90], 10_000 / 90, rtol=0.4)
