"""Versions increase, a policy pulls only when its version differs, and staleness is counted in versions."""

from __future__ import annotations

import pytest
from fake_world import CountingPolicy

from rollout.weights import Published, check_order, pull, staleness


def test_a_policy_fetches_only_weights_of_another_version() -> None:
    fetched: list[int] = []

    def fetch() -> dict[str, float]:
        fetched.append(1)
        return {"push": 0.5}

    policy = CountingPolicy(version=0)
    pull(policy, None)
    pull(policy, Published(3, fetch))
    pull(policy, Published(3, fetch))
    assert (policy.version, policy.push, len(fetched)) == (3, 0.5, 1)


def test_versions_must_increase() -> None:
    check_order(None, 0)
    check_order(Published(3, dict), 4)
    with pytest.raises(ValueError, match="must increase: 3 is published, got 3"):
        check_order(Published(3, dict), 3)


def test_staleness_counts_the_versions_published_since() -> None:
    """Ages 0, 1, 1 and 4: mean 6 / 4."""
    assert staleness(7, [7, 6, 6, 3]) == {"weights/age_mean": 1.5, "weights/age_max": 4.0}
