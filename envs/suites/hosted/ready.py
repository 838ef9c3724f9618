"""The check that ends a suite's set-up."""

from __future__ import annotations

from contextlib import closing

from envs.suites.hosted.world import HostedWorld
from envs.types import EpisodeSpec


def check_ready(title: str, world: HostedWorld) -> None:
    """Begin an episode of the first task, print the shapes of its frames, and close the world.

    Raises:
        SystemExit: a camera's frame is black.
    """
    with closing(world):
        observation, _ = world.reset_to([EpisodeSpec(suite=world.suite, task=world.tasks[0], seed=0)], [0])
    frames = ", ".join(f"{name} {list(frame.shape[1:])}" for name, frame in observation["frames"].items())
    if not all(frame.any() for frame in observation["frames"].values()):
        raise SystemExit(f"{title} runs, but its frames are black: {frames}")
    print(f"{title} is ready: {len(world.tasks)} tasks, frames {frames}")
