"""Episodes of SidesWorld by the small policy with sampled actions."""

from __future__ import annotations

from sides_policy import WillingSidesWorld, sides_model, sides_processor, sides_specs

from rollout.collect import collect
from rollout.types import Trajectory
from vla_model.policy import VLAPolicy


def rollouts(count: int, *, repeats: int = 1, num_worlds: int = 16, **model: object) -> list[Trajectory]:
    """2 * count * repeats episodes, in the order of their specs."""
    settings = {"value_head": True} | model
    policy = VLAPolicy(sides_model(**settings), sides_processor(), sample=True, seed=3, dtype="float32")
    found = collect(policy, WillingSidesWorld(num_worlds), sides_specs(count, repeats))
    return sorted(found, key=lambda t: t.spec)


def rollout(*, value_head: bool = True) -> list[Trajectory]:
    """A successful episode, and one that reached the step limit."""
    found = rollouts(40, value_head=value_head)
    won = next(t for t in found if t.success)
    late = next(t for t in found if t.truncated)
    return [won, late]
