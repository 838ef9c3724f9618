"""The arrow "new weights": from the learner, which publishes, to the workers, which pull.

    learner    publish(version, state_dict)     puts the weights into the object store once, whatever number of workers
    driver     collect(specs)                   notes the latest version and names it in every call to a worker
    worker     pull(policy, published)          before it begins episodes, where its policy has another version

Order rule: versions only rise, and an episode is acted by one version from its first step to its last: workers pull
only while no episode runs. What is published while a collect runs is for the next collect. Nobody waits for anybody.

Pulling between the chunks of an episode was left out: a trajectory would need a version per decision, a policy would
have to give up what it keeps of an episode, and nothing here learns from such episodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from envs.errors import UserError
from vla_model.types import Policy


class UpdatablePolicy(Policy, Protocol):
    """A policy that can take the learner's new weights."""

    def load_weights(self, version: int, state_dict: Mapping[str, Any]) -> None:
        """Act with these weights from the next episode on, and bear their version."""
        ...


@dataclass(frozen=True)
class Published:
    """Weights on offer."""

    version: int
    fetch: Callable[[], Mapping[str, Any]]
    """Gives the state_dict, in whatever process it is called."""


def check_order(latest: Published | None, version: int) -> None:
    """Raise UserError where a version doesn't rise."""
    if latest is not None and version <= latest.version:
        raise UserError(f"versions of weights only rise: {latest.version} is published, got {version}")


def staleness(published: int, acted: Iterable[int]) -> dict[str, float]:
    """How old the weights were that made some trajectories, in versions, as scalars for a log.

    Args:
        published: the learner's newest version.
        acted: `policy_version` of each trajectory, at least one.

    Example:
        >>> staleness(7, [7, 6, 6, 3])
        {'weights/age_mean': 1.5, 'weights/age_max': 4.0}
    """
    ages = [published - version for version in acted]
    assert ages and min(ages) >= 0, f"of trajectories made by published weights, got ages {ages}"
    return {"weights/age_mean": sum(ages) / len(ages), "weights/age_max": float(max(ages))}


def pull(policy: UpdatablePolicy, published: Published | None) -> None:
    """Bring the policy to the published version."""
    if published is not None and policy.version != published.version:
        policy.load_weights(published.version, published.fetch())
