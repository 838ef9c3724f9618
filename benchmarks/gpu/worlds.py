"""Worlds on MuJoCo Warp: what `step_chunk` costs beyond MuJoCo Warp's bare steps and frames, and what it launches.

The bare loop does the same physics steps with the same control signals from the same states, as a graph too, and
renders the same cameras once per chunk. It has no control law, success checks, labels, safety checks or copies. Its
states must equal ours, bitwise on the CPU and within DIFFERENCE on a GPU, where the order of contacts varies, or the
step ends with an error. Times are wall-clock.

Shape letters: N worlds, k actions of a chunk, A action dims, T ticks of a chunk, U actuators.
"""

from __future__ import annotations

import itertools
import time
from contextlib import closing
from typing import Any

import numpy as np
import torch
import warp as wp
from torch import Tensor

from benchmarks.gpu.launches import Counts, counted
from envs.make import make_world
from envs.simulation.warp import WarpSim
from envs.tabletop.arm import control
from envs.tabletop.world import SUBSTEPS, TabletopWorld

CHUNK = 4
"""k: actions between two frames, as in the recipes."""
DIFFERENCE = 0.01
"""Metres or radians that a joint may be from where it was when a GPU does the same steps again."""


def clock_s() -> float:
    """The time, after the GPU has finished."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def tabletop(num_worlds: int, device: str) -> TabletopWorld:
    """N tables on "warp" or "cuda"."""
    world = make_world("tabletop", num_worlds, device)
    assert isinstance(world, TabletopWorld)
    return world


def actions(world: TabletopWorld, seed: int) -> Tensor:
    """Random actions [N, k, A]."""
    generator = torch.Generator().manual_seed(seed)
    return 0.5 * torch.randn(world.num_envs, CHUNK, world.world_spec.action.size, generator=generator)


def counts_of_chunk(device: str, num_worlds: int = 12) -> Counts:
    """What a chunk launches in worlds that run every task."""
    with closing(tabletop(num_worlds, device)) as world:
        with counted():  # records the graphs
            world.reset(seed=0)
            world.step_chunk(actions(world, 0))
        given = actions(world, 1)
        with counted() as counts:
            world.step_chunk(given)
    return counts


def _record(sim: WarpSim, num_ticks: int) -> Tensor:
    """The control signals of a chunk's ticks, [T, N, U]; filled by every chunk from now on."""
    signals = torch.zeros(num_ticks, *sim.field["ctrl"].shape, device=sim.field["ctrl"].device)
    advance, ticks = sim.advance, itertools.cycle(range(num_ticks))

    def recording(num_steps: int) -> None:
        wp.copy(wp.from_torch(signals[next(ticks)]), wp.from_torch(sim.field["ctrl"]))
        advance(num_steps)

    sim.advance = recording
    return signals


def measure(device: str, num_worlds: int, repeats: int) -> dict[str, Any]:
    """Medians of seconds of our chunk, of bare physics and frames, and of a reset of all worlds."""
    num_ticks = CHUNK * control.TICKS
    with closing(tabletop(num_worlds, device)) as world:
        sim = world.sim
        signals = _record(sim, num_ticks)

        def bare() -> None:
            for signal in signals:
                wp.copy(wp.from_torch(sim.field["ctrl"]), wp.from_torch(signal))
                sim._steps(SUBSTEPS)

        rows, apart = [], 0.0
        for i in range(repeats + 2):  # the first two capture the graphs
            began = clock_s()
            world.reset(seed=i * num_worlds)
            reset_s, before = clock_s() - began, {name: values.clone() for name, values in sim.state.items()}
            given = actions(world, i)
            began = clock_s()
            result = world.step_chunk(given)
            ours_s, after = clock_s() - began, sim.state["qpos"].clone()
            for name, values in before.items():
                sim.state[name].copy_(values)
            began = clock_s()
            sim.launch("bare", bare)
            physics_s = clock_s() - began
            running = torch.from_numpy(~result.done).to(after.device)
            apart = max(apart, _largest(sim.state["qpos"][running] - after[running]))
            began = clock_s()
            sim.launch_frames()
            rows.append((ours_s, physics_s, clock_s() - began, reset_s))
    if not apart <= (DIFFERENCE if device == "cuda" else 0.0):  # NaN counts as a difference too
        raise RuntimeError(f"the bare loop's worlds are in another state than ours: joints {apart:.2g} apart")
    ours_s, physics_s, frames_s, reset_s = np.median(rows[2:], axis=0).tolist()
    return {
        "worlds": num_worlds,
        "ours_s": ours_s,
        "physics_s": physics_s,
        "frames_s": frames_s,
        "reset_s": reset_s,
        "joints_apart": apart,
        "steps": num_ticks * SUBSTEPS,
    }


def _largest(differences: Tensor) -> float:
    return float(differences.abs().max()) if differences.numel() else 0.0


COLUMNS = (
    "worlds",
    "physics steps/s",
    "pairs of frames/s",
    "bare ms/chunk",
    "our ms/chunk",
    "difference",
    "actions/s",
    "reset ms/world",
    "joints apart",
)


def row(found: dict[str, Any]) -> str:
    """One line of the table of COLUMNS."""
    num_worlds, ours_s, bare_s = found["worlds"], found["ours_s"], found["physics_s"] + found["frames_s"]
    cells = (
        f"{num_worlds}",
        f"{num_worlds * found['steps'] / found['physics_s']:,.0f}",
        f"{num_worlds / found['frames_s']:,.0f}",
        f"{1000 * bare_s:.1f}",
        f"{1000 * ours_s:.1f}",
        f"{100 * (ours_s / bare_s - 1):+.0f} %",
        f"{num_worlds * CHUNK / ours_s:,.0f}",
        f"{1000 * found['reset_s'] / num_worlds:.2f}",
        f"{found['joints_apart']:.1e}",
    )
    return f"| {' | '.join(cells)} |"
