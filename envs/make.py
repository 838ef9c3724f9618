"""make_world: the one place that knows which worlds exist and what they run on."""

from __future__ import annotations

import functools
from typing import Literal, get_args

from envs.sim import SimulatorMaker
from envs.suites.metaworld.world import WORLDS as METAWORLDS
from envs.suites.metaworld.world import MetaworldWorld
from envs.world import World

WORLDS = ("tabletop", "tabletop_memory", *METAWORLDS)
Device = Literal["cpu", "warp", "cuda"]
"""MuJoCo on the CPU; MuJoCo Warp on the CPU, for tests; MuJoCo Warp on an NVIDIA GPU."""
DEVICES: tuple[Device, ...] = get_args(Device)


def make_world(name: str, num_worlds: int = 1, device: str = "cpu") -> World:
    """N worlds of a suite.

    Worlds on "warp" and "cuda" give torch tensors on their device and take them (or numpy) as actions.

    Raises:
        ValueError: no suite or device of that name (the message lists those that exist), no GPU for "cuda", or a suite
            that is not installed or has no simulator for the device.
    """
    if name not in WORLDS:
        raise ValueError(f"world {name!r} does not exist; worlds: {', '.join(WORLDS)}")
    if name in METAWORLDS:
        if device != "cpu":
            raise ValueError(f"Meta-World's simulator runs on device 'cpu' alone, got {device!r}")
        return MetaworldWorld(num_worlds, METAWORLDS[name])
    from envs.tabletop.world import TabletopWorld

    return TabletopWorld(num_worlds, make_simulator=_simulator_on(device), suite=name)


def _simulator_on(device: str) -> SimulatorMaker | None:
    """What makes the simulator; None for a world's own choice, the CPU."""
    if device == "cpu":
        return None
    if device not in DEVICES:
        raise ValueError(f"device {device!r} does not exist; devices: {', '.join(DEVICES)}")
    import torch

    from envs.sim_warp import WarpSim
    from envs.tabletop.scene import MAX_CONSTRAINTS, MAX_CONTACTS

    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            "device 'cuda' needs an NVIDIA GPU and a PyTorch built for it, and this process has none; use 'cpu'"
        )
    return functools.partial(
        WarpSim,
        max_contacts=MAX_CONTACTS,
        max_constraints=MAX_CONSTRAINTS,
        device="cuda" if device == "cuda" else "cpu",
    )
