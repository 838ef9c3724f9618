"""The arrow "new weights": from the learner, which publishes, to the workers, which pull.

    learner    publish(version, state_dict)     puts the weights into the object store once, whatever number of workers
    driver     collect(specs)                   notes the latest version and names it in every call to a worker
    worker     pull(policy, published)          before it begins episodes, where its policy has another version

Order rule: versions only rise, and an episode is acted by one version from its first step to its last: workers pull
only while no episode runs. What is published while a collect runs is for the next collect. Nobody waits for anybody.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

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
    """Raise ValueError where a version doesn't rise."""
    if latest is not None and version <= latest.version:
        raise ValueError(f"versions of weights only rise: {latest.version} is published, got {version}")


def pull(policy: UpdatablePolicy, published: Published | None) -> None:
    """Bring the policy to the published version."""
    if published is not None and policy.version != published.version:
        policy.load_weights(published.version, published.fetch())
