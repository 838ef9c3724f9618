"""Weight synchronization: the learner publishes, the workers pull.

    learner    publish(version, state_dict)     puts the weights into the object store once for all workers
    driver     collect(specs)                   passes the latest version with every call to a worker
    worker     pull(policy, published)          before its episodes begin, if its policy has another version

Order rule: versions increase, and one version acts in an episode from its first step to its last: workers pull only
while no episode runs. Weights published during a collect apply to the next collect. Neither side blocks the other.

Pulling between the chunks of an episode was left out: a trajectory would need a version per decision, a policy would
have to drop its state of the episode, and no algorithm here learns from such episodes.
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
        """Act with these weights, and set `version`, from the next episode on."""
        ...


@dataclass(frozen=True)
class Published:
    """Published weights."""

    version: int
    fetch: Callable[[], Mapping[str, Any]]
    """Returns the state_dict; callable in any process."""


def check_order(latest: Published | None, version: int) -> None:
    """
    Raises:
        UserError: the version does not increase.
    """
    if latest is not None and version <= latest.version:
        raise UserError(f"weight versions must increase: {latest.version} is published, got {version}")


def staleness(published: int, acted: Iterable[int]) -> dict[str, float]:
    """Mean and maximum age, in versions, of the weights that collected some trajectories, as metrics.

    Args:
        published: the learner's latest version.
        acted: `policy_version` of each trajectory, at least one.

    Examples:
        >>> staleness(7, [7, 6, 6, 3])
        {'weights/age_mean': 1.5, 'weights/age_max': 4.0}
    """
    ages = [published - version for version in acted]
    assert ages and min(ages) >= 0, f"trajectories must come from published weights, got ages {ages}"
    return {"weights/age_mean": sum(ages) / len(ages), "weights/age_max": float(max(ages))}


def pull(policy: UpdatablePolicy, published: Published | None) -> None:
    """Load the published weights into the policy if its version differs."""
    if published is not None and policy.version != published.version:
        policy.load_weights(published.version, published.fetch())
