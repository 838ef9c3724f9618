"""The world of a run: suite, device, tasks and variation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from envs.make import Device, make_world
from envs.world import World
from vla_model.files.deployment import Deployment


@dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """The world of a run's episodes, for training and evaluation."""

    world: str = "tabletop"
    """Name for `make_world`."""
    device: Device = "cpu"
    """Simulator, for training and evaluation: MuJoCo, or MuJoCo Warp on the CPU or on a GPU (then workers need
    --gpus-per-worker)."""
    tasks: tuple[str, ...] = ()
    """Empty for all tasks of the world."""
    variation: str = "train"

    @property
    def make_worlds(self) -> Callable[[int], World]:
        """A picklable function of a number of worlds that creates them on the device."""
        return partial(make_world, self.world, device=self.device)

    def deployment(self, n_action_steps: int) -> Deployment:
        """The deployment of a policy for this world."""
        return Deployment(n_action_steps=n_action_steps, world=self.world, tasks=self.tasks)
