"""Overhead of the tabletop world over MuJoCo: `step_chunk` against a bare loop with the same physics and frames.

    python -m benchmarks.world --out docs/results/world.md

Both execute the same control signals from the same states, world after world in one thread, and render the same cameras
with the same flags once per chunk; the benchmark ends with an error if a state or a pixel differs. The bare loop is
`mj_step`, `mj_kinematics`, `mjv_updateScene`, `mjr_render`, `mjr_readPixels` and nothing else: no control law, success
checks, labels or safety checks. Times are CPU time of this process, so that other load on the machine does not count.

Shape letters: N worlds, k actions of a chunk, A action dims, U actuators, H x W pixels.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import mujoco
import numpy as np
import tyro
from numpy.typing import NDArray

from benchmarks.document import finish, head
from envs.simulation.gl import gl_context
from envs.tabletop.scene.scene import CAMERAS
from envs.tabletop.world import TabletopWorld
from envs.types import EpisodeSpec

Frames = dict[str, NDArray[np.uint8]]  # {camera: [n, H, W, 3]}
Tick = tuple[NDArray[np.int64], NDArray[np.float64], int]
"""Worlds that step, their control signals [n, U], physics steps."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure."""

    num_worlds: int = 16
    chunks: tuple[int, ...] = (1, 4)
    """Chunk sizes, a row for each."""
    num_actions: int = 120
    """Actions of every world, per row."""
    noise_std: float = 0.3
    """Standard deviation of the noise added to the expert's actions, so that not all episodes succeed."""
    out: Path | None = None
    """File to which the table is written, in addition to the screen."""


class BareLoop:
    """N MuJoCo simulations, stepped and rendered one after the other."""

    def __init__(self, world: TabletopWorld) -> None:
        self._world = world
        self._models = [world.sim.batch.get_model(n) for n in range(world.num_envs)]
        self.datas = [mujoco.MjData(model) for model in self._models]
        quality, size = self._models[0].vis.quality, self._models[0].vis.global_
        quality.offsamples, size.offwidth, size.offheight = 0, 128, 128
        self._gl = gl_context(128, 128)
        self._gl.make_current()
        self._context = mujoco.MjrContext(self._models[0], mujoco.mjtFontScale.mjFONTSCALE_100.value)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._context)
        self._scene = mujoco.MjvScene(self._models[0], maxgeom=200)
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            self._scene.flags[flag] = 0
        self._option = mujoco.MjvOption()
        self._cameras = []
        for spec in world.world_spec.cameras:
            camera = mujoco.MjvCamera()
            camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
            camera.fixedcamid = self._models[0].camera(spec.name).id
            self._cameras.append((spec, camera, mujoco.MjrRect(0, 0, spec.width, spec.height)))

    def take_over(self, worlds: list[int]) -> None:
        """Copy the state of these worlds."""
        for n in worlds:
            self._world.sim.batch.get_model(n, self._models[n])
            self._world.sim.batch.get_data(n, self.datas[n])

    def step(self, ticks: list[Tick]) -> None:
        """Step the physics."""
        for worlds, ctrl, num_steps in ticks:
            for n, signal in zip(worlds.tolist(), ctrl, strict=True):
                self.datas[n].ctrl[:] = signal
                mujoco.mj_step(self._models[n], self.datas[n], num_steps)

    def draw(self, worlds: list[int]) -> Frames:
        """Frames of these worlds."""
        frames = {
            spec.name: np.empty((len(worlds), spec.height, spec.width, 3), np.uint8) for spec, _, _ in self._cameras
        }
        self._gl.make_current()
        everything = mujoco.mjtCatBit.mjCAT_ALL.value
        for row, n in enumerate(worlds):
            model, data = self._models[n], self.datas[n]
            mujoco.mj_kinematics(model, data)
            mujoco.mj_camlight(model, data)
            mujoco.mjv_updateScene(model, data, self._option, None, self._cameras[0][1], everything, self._scene)
            for spec, camera, rect in self._cameras:
                mujoco.mjv_updateCamera(model, data, camera, self._scene)
                mujoco.mjr_render(rect, self._scene, self._context)
                mujoco.mjr_readPixels(frames[spec.name][row], None, rect, self._context)
        return {name: images[:, ::-1] for name, images in frames.items()}


@dataclass(kw_only=True)
class Times:
    """CPU seconds of every chunk."""

    ours: list[float] = field(default_factory=list)
    physics: list[float] = field(default_factory=list)
    """Time of the bare loop."""
    frames: list[float] = field(default_factory=list)
    """Time of the bare loop."""


def measure(options: Options, chunk: int) -> Times:
    """Run each chunk, first ours and then the bare loop's, and compare."""
    world, times = TabletopWorld(options.num_worlds), Times()
    specs = episodes(world)
    world.reset_to([next(specs) for _ in range(world.num_envs)], range(world.num_envs))
    bare = BareLoop(world)
    bare.take_over(list(range(world.num_envs)))
    ticks: list[Tick] = []
    record(world, ticks)
    rng = np.random.default_rng(0)
    for i in range(options.num_actions // chunk + 1):
        shape = (world.num_envs, chunk, world.world_spec.action.size)
        actions = world.expert_action()[:, None] + options.noise_std * rng.normal(size=shape)
        ticks.clear()
        clock_s = [time.process_time()]
        result = world.step_chunk(actions)
        clock_s.append(time.process_time())
        bare.step(ticks)
        clock_s.append(time.process_time())
        frames = bare.draw(list(range(world.num_envs)))
        clock_s.append(time.process_time())
        check_same(world, bare, result.observation["frames"], frames)
        if i > 0:  # the first call creates the OpenGL contexts
            for values, spent_s in zip((times.ours, times.physics, times.frames), np.diff(clock_s), strict=True):
                values.append(float(spent_s))
        if ended := np.flatnonzero(result.done).tolist():
            world.reset_to([next(specs) for _ in ended], ended)
            bare.take_over(ended)
    return times


def check_same(world: TabletopWorld, bare: BareLoop, ours: Frames, theirs: Frames) -> None:
    """Raise if a state or a pixel differs: then the two did not do the same work."""
    for n, data in enumerate(bare.datas):
        if not np.array_equal(data.qpos, world.sim.field["qpos"][n]):
            raise RuntimeError(f"the bare loop's world {n} is in another state than ours")
    for name, images in theirs.items():
        if not np.array_equal(images, ours[name]):
            raise RuntimeError(f"the bare loop's {name} frames are not ours")


def episodes(world: TabletopWorld) -> Iterator[EpisodeSpec]:
    """An endless stream of episodes that cycles through the tasks."""
    seed = 0
    while True:
        yield world.example_spec(seed)
        seed += 1


def record(world: TabletopWorld, ticks: list[Tick]) -> None:
    """Record the control signals that the world sends to its simulator."""
    step = world.sim.step

    def recording_step(sims: NDArray[np.int64], num_steps: int) -> NDArray[np.bool_]:
        ticks.append((sims, world.sim.field["ctrl"][sims], num_steps))
        return step(sims, num_steps)

    world.sim.step = recording_step


def row(options: Options, chunk: int) -> str:
    """One line of the table."""
    times = measure(options, chunk)
    seconds = np.array((times.ours, times.physics, times.frames))
    ours, physics, frames = 1000 * np.median(seconds, axis=1) / options.num_worlds
    more = np.median(seconds[0] / seconds[1:].sum(axis=0)) - 1  # chunk by chunk: both ran under the same machine load
    return (
        f"| {chunk} | {physics:.2f} | {frames:.2f} | {physics + frames:.2f} | {ours:.2f} | {100 * more:+.0f} % "
        f"| {1000 * chunk / ours:.0f} |"
    )


def main(options: Options) -> None:
    """Measure, print and write."""
    cameras = " and ".join(f"{c.height} x {c.width}" for c in CAMERAS)
    conditions = (
        f"{options.num_worlds} worlds of all tasks, one process, one thread, frames of {cameras} pixels. Medians in "
        f"CPU milliseconds per world and chunk. {platform.machine()}, MuJoCo {mujoco.__version__}."
    )
    lines = [
        *head("The tabletop world against a bare MuJoCo loop", "world", conditions),
        "",
        "| actions per chunk | bare physics | bare frames | bare loop | our world | difference | actions/s |",
        "|---|---|---|---|---|---|---|",
        *(row(options, chunk) for chunk in options.chunks),
    ]
    finish(lines, options.out)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
