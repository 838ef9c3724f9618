"""The world of a run: which one, on what, and which of its tasks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from envs.make import Device, make_world
from envs.world import World
from vla_model.files.deployment import Deployment


@dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """Where a run's episodes are, those that evaluate too."""

    world: str = "tabletop"
    """Name for `make_world`."""
    device: Device = "cpu"
    """What the worlds run on, also those that evaluate: MuJoCo, or MuJoCo Warp on the CPU or on a GPU (then workers
    need --gpus-per-worker)."""
    tasks: tuple[str, ...] = ()
    """Empty for all tasks of the world."""
    variation: str = "train"

    @property
    def make_worlds(self) -> Callable[[int], World]:
        """Makes so many worlds on the device; can be sent to other processes."""
        return partial(make_world, self.world, device=self.device)

    def deployment(self, n_action_steps: int) -> Deployment:
        """Of a policy for this world, with so many actions executed of each chunk."""
        return Deployment(n_action_steps=n_action_steps, world=self.world, tasks=self.tasks)
