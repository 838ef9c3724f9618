"""The world of a run: suite, device, tasks and variation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial

from agent.runs.checks import check_episodes
from envs.make import Device, check_device, make_world
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

    def check_names(self, *variations: Sequence[str]) -> None:
        """Check names without importing a module of the user's own, which may take long.

        Args:
            variations: lists of them, each without a name that comes twice.

        Raises:
            UserError: the suite, its device, a task or a variation does not exist.
        """
        check_device(self.world, self.device)
        if ":" not in self.world:
            with closing(make_world(self.world)) as world:
                for names in variations:
                    check_episodes(world, self.tasks, names)

    def deployment(self, n_action_steps: int) -> Deployment:
        """The deployment of a policy for this world."""
        return Deployment(n_action_steps=n_action_steps, world=self.world, tasks=self.tasks)
