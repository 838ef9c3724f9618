"""Compiles the kernels of the worlds on several cores. A launch compiles its module when it first comes, one by one:
minutes on a GPU. Compiled modules are cached in the user's cache directory, for this and later processes.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import closing
from typing import Any
from unittest import mock

import mujoco_warp as mjw
import warp as wp

from benchmarks.gpu.worlds import tabletop


def compile_all(device: str) -> dict[str, Any]:
    """Compile what a chunk and its frames launch; returns how many modules, and the seconds."""
    began_s = time.perf_counter()
    modules: dict[int | None, dict[Any, None]] = defaultdict(
        dict
    )  # by threads per block, None for the device's default

    def note(kernel: Any, *args: Any, block_dim: int | None = None, **kwargs: Any) -> None:
        del args, kwargs
        modules[block_dim][kernel.module] = None

    def once(condition: Any, while_body: Callable[..., object], *args: Any, **kwargs: Any) -> None:
        del condition, args
        while_body(**kwargs)

    with closing(tabletop(2, device)) as world:
        sim = world.sim
        with mock.patch.multiple(wp, launch=note, launch_tiled=note, capture_while=once), sim._scope():
            world._kernels(world._new_buffers(1), True, 1)
            mjw.refit_bvh(sim._model, sim._data, sim._camera)
            mjw.render(sim._model, sim._data, sim._camera)
        for block_dim, found in modules.items():
            wp.force_load(sim._warp_device, list(found), block_dim=block_dim, max_workers=os.cpu_count())
        world.reset(seed=0)  # the others
    return {"modules": sum(map(len, modules.values())), "seconds": time.perf_counter() - began_s}
