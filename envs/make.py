"""make_world: the one place that knows which worlds exist and what they run on."""

from __future__ import annotations

from envs.world import World

WORLDS = ("tabletop",)


def make_world(name: str, num_worlds: int = 1) -> World:
    """N worlds of a suite.

    Raises:
        ValueError: no suite of that name; the message lists those that exist.
    """
    if name == "tabletop":
        from envs.tabletop.world import TabletopWorld

        return TabletopWorld(num_worlds)
    raise ValueError(f"world {name!r} does not exist; worlds: {', '.join(WORLDS)}")
