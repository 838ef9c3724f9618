"""Overhead of the tabletop world on MuJoCo Warp: `step_chunk` against MuJoCo Warp's bare steps and frames.

    python -m benchmarks.warp --device cuda --num-worlds 256 1024 4096 --out docs/results/warp.md

The bare loop does the same physics steps with the same control signals from the same states, as graphs too, and renders
the same cameras once per chunk. It has no control law, success checks, labels, safety checks or copies. Its states must
equal ours, bitwise on the CPU and within DIFFERENCE on a GPU, where the order of contacts varies, or the benchmark ends
with an error. Times are wall-clock. "--device warp" runs the same on the CPU.

Shape letters: N worlds, k actions of a chunk, A action dims, U actuators.
"""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.document import head
from envs.make import make_world
from envs.simulation.warp import WarpSim
from envs.tabletop.arm import control
from envs.tabletop.scene.scene import CAMERAS
from envs.tabletop.world import SUBSTEPS, TabletopWorld

DIFFERENCE = 0.01
"""Metres or radians that a joint may be from where it was when a GPU does the same steps again."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure."""

    device: str = "cuda"
    """cuda, or warp for the CPU."""
    num_worlds: tuple[int, ...] = (256, 1024, 4096)
    """Each has a row of its own."""
    chunk: int = 4
    """Actions between two frames."""
    repeats: int = 10
    """Chunks per row; the median counts."""
    out: Path | None = None
    """File that the table is written to besides the screen."""


def clock_s() -> float:
    """The time, after synchronising the GPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def record(sim: WarpSim) -> list[Tensor]:
    """A list to which every tick's control signals, [N, U], are appended."""
    signals: list[Tensor] = []
    launch = sim.launch_steps

    def recording_launch(num_steps: int) -> None:
        assert num_steps == SUBSTEPS
        signals.append(sim.field["ctrl"].clone())
        launch(num_steps)

    sim.launch_steps = recording_launch
    return signals


def copy_of_state(sim: WarpSim) -> dict[str, Tensor]:
    """All state that the next step reads."""
    return {name: values.clone() for name, values in sim.state.items()}


def put_state(sim: WarpSim, state: dict[str, Tensor]) -> None:
    """Set the worlds to that state."""
    for name, values in state.items():
        sim.state[name].copy_(values)


def measure(options: Options, num_worlds: int) -> NDArray[np.float64]:
    """Seconds of our chunk, bare physics, bare frames and the reset of all worlds, and how far apart the states end.

    Returns:
        [repeats, 5]
    """
    world = make_world("tabletop", num_worlds, options.device)
    assert isinstance(world, TabletopWorld)
    sim, generator, rows = world.sim, torch.Generator().manual_seed(0), []
    launch, signals = sim.launch_steps, record(sim)
    for i in range(options.repeats + 1):  # the first call compiles and captures the graphs
        began = clock_s()
        world.reset(seed=i * num_worlds)
        reset_s = clock_s() - began
        actions = 0.5 * torch.randn(num_worlds, options.chunk, world.world_spec.action.size, generator=generator)
        before = copy_of_state(sim)
        signals.clear()
        began = clock_s()
        result = world.step_chunk(actions)
        ours_s = clock_s() - began
        after = copy_of_state(sim)
        put_state(sim, before)
        began = clock_s()
        for signal in signals:
            sim.field["ctrl"].copy_(signal)
            launch(SUBSTEPS)
        physics_s = clock_s() - began
        running = torch.from_numpy(~result.done)
        differences = (sim.state["qpos"][running] - after["qpos"][running]).abs()
        apart = float(differences.max()) if len(differences) else 0.0
        if not apart <= (DIFFERENCE if options.device == "cuda" else 0.0):  # NaN counts as a difference too
            raise RuntimeError(f"the bare loop's worlds are in another state than ours: joints {apart:.2g} apart")
        began = clock_s()
        sim.launch_frames()
        rows.append((ours_s, physics_s, clock_s() - began, reset_s, apart))
    world.close()
    return np.array(rows[1:])


def row(options: Options, num_worlds: int) -> str:
    """One line of the table."""
    measured = measure(options, num_worlds)
    ours_s, physics_s, frames_s, reset_s, _ = np.median(measured, axis=0)
    bare_s, steps = physics_s + frames_s, options.chunk * control.TICKS * SUBSTEPS
    return (
        f"| {num_worlds} | {num_worlds * steps / physics_s:,.0f} | {num_worlds / frames_s:,.0f} "
        f"| {1000 * bare_s:.1f} | {1000 * ours_s:.1f} | {100 * (ours_s / bare_s - 1):+.0f} % "
        f"| {num_worlds * options.chunk / ours_s:,.0f} | {1000 * reset_s / num_worlds:.2f} "
        f"| {measured[:, 4].max():.1e} |"
    )


def main(options: Options) -> None:
    """Measure, print and write."""
    cameras = " and ".join(f"{c.height} x {c.width}" for c in CAMERAS)
    device = torch.cuda.get_device_name() if options.device == "cuda" else f"{platform.machine()} (one core)"
    columns = (
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
    conditions = (
        f"Random actions in chunks of {options.chunk}, frames of {cameras} pixels once per chunk. Medians. {device}, "
        f"MuJoCo Warp {version('mujoco-warp')}. A reset draws the episodes, on the host, and the first frames. "
        "Joints apart: the most that any of ours ended from the bare loop's, in m or rad."
    )
    lines = [
        *head("The tabletop world on MuJoCo Warp", "warp", conditions),
        "",
        f"| {' | '.join(columns)} |",
        "|---" * len(columns) + "|",
    ]
    print("\n".join(lines))
    for num_worlds in options.num_worlds:
        lines.append(row(options, num_worlds))
        print(lines[-1], flush=True)
    if options.out is not None:
        options.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
