"""DAgger's mixture: who acts, and the labels."""

from __future__ import annotations

import numpy as np
import pytest
from sides_policy import WillingSidesWorld, sides_model, sides_processor, sides_specs

from agent.algorithms.cloning_config import DaggerConfig
from agent.algorithms.dagger import DaggerPolicy
from rollout.collect import collect
from rollout.types import Trajectory
from vla_model.policy import VLAPolicy
from vla_model.weights.config import FineTuning


def learner(version: int = 0) -> VLAPolicy:
    return VLAPolicy(sides_model(), sides_processor(), version=version, dtype="float32")


def run(config: DaggerConfig, version: int, num_worlds: int = 8) -> list[Trajectory]:
    world = WillingSidesWorld(num_worlds)
    policy = DaggerPolicy(learner(version), world, config)
    found = collect(policy, world, sides_specs(20), n_action_steps=1, all_frames=True)
    return sorted(found, key=lambda t: t.spec)


@pytest.mark.parametrize(("beta", "version", "share"), [(0.0, 0, 0.0), (1.0, 0, 1.0), (0.8, 1, 0.4)])
def test_the_expert_acts_in_its_share_and_labels_every_step(beta: float, version: int, share: float) -> None:
    trajectories = run(DaggerConfig(beta=beta, beta_decay=0.5), version)
    side = {"left": -1.0, "right": 1.0}
    for t in trajectories:
        assert (t.label == side[t.spec.task]).all()
        assert t.policy_version == version
        np.testing.assert_array_equal(t.frame_step, np.arange(t.num_steps))
    by_expert = np.concatenate([(t.action == t.label)[:, 0] for t in trajectories])
    assert by_expert.mean() == pytest.approx(share, abs=3 * np.sqrt(share * (1 - share) / len(by_expert)))


@pytest.mark.parametrize("n_action_steps", [1, 2])
def test_who_acts_is_decided_by_the_episode_alone(n_action_steps: int) -> None:
    config = DaggerConfig(beta=0.5, beta_decay=1.0, n_action_steps=n_action_steps)
    for a, b in zip(run(config, 0, num_worlds=8), run(config, 0, num_worlds=3), strict=True):
        np.testing.assert_allclose(a.action, b.action, atol=1e-6)


@pytest.mark.parametrize("n_action_steps", [1, 2])
def test_with_beta_0_collection_equals_evaluation(n_action_steps: int) -> None:
    practised = run(DaggerConfig(beta=0.0, n_action_steps=n_action_steps), 0)
    evaluated = collect(learner(), WillingSidesWorld(8), sides_specs(20), n_action_steps=n_action_steps)
    for a, b in zip(practised, sorted(evaluated, key=lambda t: t.spec), strict=True):
        np.testing.assert_allclose(a.action, b.action, atol=1e-6)


def test_the_expert_acts_for_whole_decisions() -> None:
    changes = [
        np.flatnonzero(np.diff((t.action == t.label)[:, 0]))
        for t in run(DaggerConfig(beta=0.5, beta_decay=1.0, n_action_steps=2), 0)
    ]
    assert sum(map(len, changes))
    assert all((change % 2 == 1).all() for change in changes)


def test_more_actions_than_a_chunk_has_are_refused() -> None:
    with pytest.raises(ValueError, match=r"n_action_steps must be within 1..2, the chunk's length, got 3"):
        DaggerConfig(n_action_steps=3).check_model(sides_model().config, FineTuning(), iterations=1)
