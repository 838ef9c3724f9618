"""make_world: the registry of worlds and devices."""

from __future__ import annotations

import functools
from contextlib import closing
from typing import Literal, get_args

from envs.errors import UserError
from envs.suites.hosted.function_world import FunctionWorld, split_name
from envs.suites.libero.world import WORLDS as LIBERO_WORLDS
from envs.suites.libero.world import LiberoWorld
from envs.suites.metaworld.world import WORLDS as METAWORLDS
from envs.suites.metaworld.world import MetaworldWorld
from envs.suites.own import own_world
from envs.types import WorldSpec
from envs.world import World

WORLDS = ("tabletop", "tabletop_memory", *METAWORLDS, *LIBERO_WORLDS)
Device = Literal["cpu", "warp", "cuda"]
"""MuJoCo on the CPU; MuJoCo Warp on the CPU, for tests; MuJoCo Warp on an NVIDIA GPU."""
DEVICES: tuple[Device, ...] = get_args(Device)


def make_world(name: str, num_worlds: int = 1, device: str = "cpu") -> World:
    """N worlds of a suite.

    Args:
        name: one of WORLDS, or MODULE:FUNCTION of the user's own module: the function is called with num_worlds and
            returns a World (docs/your_task.md). MODULE:FUNCTION@PYTHON calls it in another interpreter, with 1 for each
            of the worlds; `world_name` makes such a name.
        num_worlds: N.
        device: one of DEVICES; MODULE:FUNCTION runs on "cpu".

    Worlds on "warp" and "cuda" return torch tensors on their device, and take torch or numpy actions.

    Raises:
        UserError: no suite or device of that name (the message lists those that exist), no GPU for "cuda", a suite
            that is not installed or does not support the device, or a function that cannot be imported or does not
            return a World.
    """
    check_device(name, device)
    if ":" in name:
        function, python = split_name(name)
        return own_world(function, num_worlds) if python is None else FunctionWorld(num_worlds, function, python)
    if name in METAWORLDS:
        return MetaworldWorld(num_worlds, METAWORLDS[name])
    if name in LIBERO_WORLDS:
        return LiberoWorld(num_worlds, LIBERO_WORLDS[name])
    if device == "cpu":
        from envs.tabletop.world import TabletopWorld

        return TabletopWorld(num_worlds, suite=name)
    from envs.simulation.warp import WarpSim
    from envs.tabletop.kernels.world import WarpTabletopWorld
    from envs.tabletop.scene.scene import MAX_CONSTRAINTS, MAX_CONTACTS

    buffers = {"max_contacts": MAX_CONTACTS, "max_constraints": MAX_CONSTRAINTS}
    warp = functools.partial(WarpSim, device="cuda" if device == "cuda" else "cpu", **buffers)
    return WarpTabletopWorld(num_worlds, make_simulator=warp, suite=name)


def check_device(name: str, device: str) -> None:
    """Check that the world can run on the device, without making it.

    Raises:
        UserError: no world or device of that name, no simulator of the world for the device, no interpreter at the
            path that the name has, or no GPU for "cuda".
    """
    if ":" not in name and name not in WORLDS:
        raise UserError(f"world {name!r} does not exist; worlds: {', '.join(WORLDS)}, or MODULE:FUNCTION of your own")
    split_name(name)
    if ":" in name and device != "cpu":
        raise UserError(f"world {name!r} runs on the device 'cpu', got {device!r}")
    if (name in METAWORLDS or name in LIBERO_WORLDS) and device != "cpu":
        suite = "Meta-World" if name in METAWORLDS else "LIBERO"
        raise UserError(f"{suite}'s simulator runs on device 'cpu' alone, got {device!r}")
    if device not in DEVICES:
        raise UserError(f"device {device!r} does not exist; devices: {', '.join(DEVICES)}")
    if device != "cuda":
        return
    import torch

    if not torch.cuda.is_available():
        raise UserError(
            "device 'cuda' needs an NVIDIA GPU and a PyTorch built for it, and this process has none; use 'cpu'"
        )


def world_spec_of(name: str) -> WorldSpec:
    """The WorldSpec of a suite or of MODULE:FUNCTION.

    Raises:
        UserError: as `make_world`.
    """
    with closing(make_world(name)) as world:
        return world.world_spec
