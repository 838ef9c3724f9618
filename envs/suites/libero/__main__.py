"""`python -m envs.suites.libero`: checks that LIBERO runs and renders here; last step of `make libero`."""

from __future__ import annotations

from contextlib import closing

from envs.suites.libero.world import LiberoWorld
from envs.types import EpisodeSpec


def main() -> None:
    """Begin an episode and print the shapes of its frames."""
    with closing(LiberoWorld(1)) as world:
        observation, _ = world.reset_to([EpisodeSpec(suite=world.suite, task=world.tasks[0], seed=0)], [0])
    frames = ", ".join(f"{name} {list(frame.shape[1:])}" for name, frame in observation["frames"].items())
    if not all(frame.any() for frame in observation["frames"].values()):
        raise SystemExit(f"LIBERO runs, but its frames are black: {frames}")
    print(f"LIBERO is ready: {len(world.tasks)} tasks, frames {frames}")


if __name__ == "__main__":
    main()
