"""A world of the user's own, made by a function of their module (docs/your_task.md)."""

from __future__ import annotations

import gymnasium

from envs.errors import UserError
from envs.imported import imported
from envs.simulation.gl import choose_backend
from envs.suites.returned import calling
from envs.world import World


def own_world(name: str, num_worlds: int) -> World:
    """N worlds of MODULE:FUNCTION, which is called with N.

    Raises:
        UserError: the function cannot be imported, raised, or does not return a World of N worlds.
    """
    choose_backend()  # before the module imports MuJoCo, which reads the variable once
    make = imported("world", name)
    with calling(f"world {name!r}"):
        world = make(num_worlds)
    if isinstance(world, World):
        if world.num_envs == num_worlds:
            return world
        world.close()
        raise UserError(
            f"world {name!r} was called with {num_worlds}, and gave a World of {world.num_envs}; give it as many"
        )
    how = (
        "; write a GymnasiumTask whose make_env returns it, and let the function return a GymnasiumWorld "
        "(docs/your_task.md)"
    )
    kind = f"{type(world).__name__}, expected an envs.world.World"
    raise UserError(f"world {name!r} gave a {kind}{how if isinstance(world, gymnasium.Env) else ''}")
