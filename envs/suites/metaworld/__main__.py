"""`python -m envs.suites.metaworld`: checks that Meta-World runs and renders here; last step of `make metaworld`."""

from __future__ import annotations

from contextlib import closing

from envs.suites.metaworld.world import MetaworldConfig, MetaworldWorld
from envs.types import EpisodeSpec


def main() -> None:
    """Begin an episode and print the shapes of its frames."""
    with closing(MetaworldWorld(1, MetaworldConfig())) as world:
        observation, _ = world.reset_to([EpisodeSpec(suite=world.suite, task="reach-v3", seed=0)], [0])
    frames = ", ".join(f"{name} {list(frame.shape[1:])}" for name, frame in observation["frames"].items())
    if not any(frame.any() for frame in observation["frames"].values()):
        raise SystemExit(f"Meta-World runs, but its frames are black: {frames}")
    print(f"Meta-World is ready: {len(world.tasks)} tasks, frames {frames}")


if __name__ == "__main__":
    main()
