"""DAgger's mixture: who acts, and what is taught."""

from __future__ import annotations

import numpy as np
import pytest
from sides_policy import WillingSidesWorld, sides_model, sides_processor, sides_specs

from agent.dagger import DaggerConfig, Mixture
from rollout.collect import collect
from rollout.types import Trajectory
from vla_model.policy import VLAPolicy


def run(config: DaggerConfig, version: int, num_worlds: int = 8) -> list[Trajectory]:
    world = WillingSidesWorld(num_worlds)
    policy = Mixture(VLAPolicy(sides_model(), sides_processor(), version=version, dtype="float32"), world, config)
    found = collect(policy, world, sides_specs(20), execute_steps=1, all_frames=True)
    return sorted(found, key=lambda t: t.spec)


@pytest.mark.parametrize(("beta", "version", "share"), [(0.0, 0, 0.0), (1.0, 0, 1.0), (0.8, 1, 0.4)])
def test_the_expert_acts_in_its_share_and_teaches_everywhere(beta: float, version: int, share: float) -> None:
    trajectories = run(DaggerConfig(beta=beta, beta_decay=0.5), version)
    side = {"left": -1.0, "right": 1.0}
    for t in trajectories:
        assert (t.label == side[t.spec.task]).all()
        assert t.policy_version == version
        np.testing.assert_array_equal(t.frame_step, np.arange(t.num_steps))
    by_expert = np.concatenate([(t.action == t.label)[:, 0] for t in trajectories])
    assert by_expert.mean() == pytest.approx(share, abs=3 * np.sqrt(share * (1 - share) / len(by_expert)))


def test_who_acts_is_decided_by_the_episode_alone() -> None:
    config = DaggerConfig(beta=0.5, beta_decay=1.0)
    for a, b in zip(run(config, 0, num_worlds=8), run(config, 0, num_worlds=3), strict=True):
        np.testing.assert_allclose(a.action, b.action, atol=1e-6)
