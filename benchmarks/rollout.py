"""Rollout speed: our workers against gymnasium's vector environments and against a bare MuJoCo loop.

    python -m benchmarks.rollout --out docs/results/rollout

All methods run the task `pick_place` with two cameras of 96 x 96 pixels and uniformly random actions:

    bare loop         recorded control signals into `mj_step`, then the policy's frames: the upper bound.
                      One process, or two in parallel
    ours              `Workers` of rollout/workers, 1 and 2 processes: trajectories in the driver, resets included
    SyncVectorEnv     gymnasium's, over the single environment `envs.tabletop.env.TabletopEnv`: one process
    AsyncVectorEnv    the same with a process per environment and shared memory, as many as are fastest

gymnasium's interface executes one action at a time and renders after each, even with action chunks; ours executes a
chunk and renders at its end. Rates are control steps of all worlds per second of wall-clock. Methods take turns,
`repeats` times, so that all run under the same conditions; each runs alone: started, warmed up, measured, closed.
Ratios are medians of the ratios within one turn.

Shape letters: N worlds, k actions of a chunk, A action dims.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
import mujoco
import numpy as np
import torch
import tyro
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv
from matplotlib import pyplot as plt
from rich.progress import track

from agent.runs.run_folder import machine
from benchmarks.document import head
from benchmarks.untrained import untrained
from benchmarks.world import BareLoop, Tick, record
from envs.tabletop.env import TabletopEnv
from envs.tabletop.world import TabletopConfig, TabletopWorld
from envs.types import CameraSpec, EpisodeSpec, Observation
from envs.world import World
from rollout.peak_memory import peak_memory_gb
from rollout.workers.handle import start_ray
from rollout.workers.workers import Workers, WorkersConfig
from vla_model.numerics.precision import native_dtype
from vla_model.policy import VLAPolicy
from vla_model.types import ActionChunk

TASK = "pick_place"
CONFIG = TabletopConfig(cameras=tuple(CameraSpec(name=name, height=96, width=96) for name in ("front", "wrist")))
Rates = dict[str, list[float]]
"""{contender: steps/s of every turn}"""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure."""

    num_worlds: int = 64
    """Worlds in each process, of ours and of the bare loop."""
    rounds: int = 2
    """Episodes of every world, per measurement of ours."""
    bare_steps: int = 64
    """Control steps of every world, per measurement of the bare loop."""
    gym_envs: tuple[int, ...] = (2, 8)
    """Numbers of environments in AsyncVectorEnv; the fastest is reported."""
    gym_steps: int = 240
    """Control steps of all environments together, times ten, per measurement of gymnasium's."""
    repeats: int = 5
    out: Path | None = None
    """Files of the table (.md) and the plot (.png), without the extension."""


class RandomPolicy:
    """Uniformly random chunks of k actions, sampled from each episode's seed; its version is its process id."""

    def __init__(self, num_worlds: int, chunk: int) -> None:
        self.version = os.getpid()
        self._generators = [np.random.default_rng(0) for _ in range(num_worlds)]
        self._shape = (chunk, 7)

    def begin(self, worlds: Sequence[int], instructions: tuple[str, ...], seeds: tuple[int, ...]) -> None:
        for world, seed in zip(worlds, seeds, strict=True):
            self._generators[world] = np.random.default_rng(seed)

    def act(self, worlds: Sequence[int], observation: Observation) -> ActionChunk:
        drawn = [self._generators[world].uniform(-1, 1, self._shape) for world in worlds]
        return ActionChunk(actions=np.array(drawn, np.float32))


def make_world(num_worlds: int) -> TabletopWorld:
    """The world that every method runs."""
    return TabletopWorld(num_worlds, CONFIG)


def random_policy(chunk: int, world: World) -> RandomPolicy:
    """RandomPolicy's factory for Workers, which call it in the worker's process."""
    return RandomPolicy(world.num_envs, chunk)


def nano_policy(world: World) -> VLAPolicy:
    """The nano model's factory for Workers, as random_policy."""
    return VLAPolicy(*untrained(world.world_spec))


def episodes(count: int) -> list[EpisodeSpec]:
    """The first `count` of the task."""
    return [EpisodeSpec(suite="tabletop", task=TASK, seed=seed) for seed in range(count)]


def bare_rate(chunk: int, options: Options, barrier: Any = None) -> float:
    """Steps/s of one bare loop, which starts when all at the barrier are ready."""
    world, ticks = make_world(options.num_worlds), list[Tick]()
    policy = random_policy(chunk, world)
    specs = episodes(options.num_worlds)
    observation, _ = world.reset_to(specs, range(options.num_worlds))
    policy.begin(range(options.num_worlds), observation["instruction"], tuple(spec.seed for spec in specs))
    bare = BareLoop(world)
    bare.take_over(list(range(options.num_worlds)))
    record(world, ticks)
    recorded: list[list[Tick]] = []
    while not world.step_chunk(policy.act(range(world.num_envs), observation).actions).done.any():
        recorded.append(ticks.copy())
        ticks.clear()
    beginning = [(data.qpos.copy(), data.qvel.copy()) for data in bare.datas]
    bare.draw([0])  # makes the OpenGL context
    if barrier is not None:
        barrier.wait()
    began_s, done = time.perf_counter(), 0
    while done < options.bare_steps:
        for data, (qpos, qvel) in zip(bare.datas, beginning, strict=True):
            data.qpos[:], data.qvel[:] = qpos, qvel
        for chunk_ticks in recorded:
            bare.step(chunk_ticks)
            bare.draw(list(range(options.num_worlds)))
            done += chunk
    return done * options.num_worlds / (time.perf_counter() - began_s)


def bare_rates(chunk: int, options: Options, processes: int) -> float:
    """Total steps/s of that many bare loops in parallel."""
    with multiprocessing.get_context("spawn").Manager() as manager:
        barrier: Any = manager.Barrier(processes)
        with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
            return sum(pool.map(partial(bare_rate, options=options, barrier=barrier), [chunk] * processes))


def our_rate(options: Options, num_workers: int, make_policy: Callable[[World], Any]) -> float:
    """Steps/s of workers already started, as between a learner's iterations, until the last trajectory."""
    config = WorkersConfig(workers=num_workers)
    with Workers(partial(make_world, options.num_worlds), make_policy, config) as workers:
        for _ in workers.collect(episodes(options.num_worlds * num_workers)):
            pass
        specs = episodes(options.rounds * options.num_worlds * num_workers)
        began_s = time.perf_counter()
        steps = sum(trajectory.num_steps for trajectory in workers.collect(specs))
        return steps / (time.perf_counter() - began_s)


def start_and_restart_s() -> tuple[float, float]:
    """Seconds from a running Ray to the first trajectory, and from a worker's death to its successor's first."""
    with Workers(partial(make_world, 1), partial(random_policy, 8), WorkersConfig(workers=1)) as workers:
        start_ray()
        began_s, killed = time.perf_counter(), 0
        for trajectory in workers.collect(episodes(1000)):
            now_s = time.perf_counter()
            if not killed:
                start_s, killed = now_s - began_s, trajectory.policy_version
                os.kill(killed, signal.SIGKILL)
                began_s = time.perf_counter()
            elif trajectory.policy_version != killed:  # trajectories sent before the kill may still arrive
                return start_s, now_s - began_s
    raise RuntimeError("the killed worker has no successor")


def gym_rate(
    kind: type[SyncVectorEnv[Any, Any, Any] | AsyncVectorEnv[Any, Any, Any]], num_envs: int, num_steps: int
) -> float:
    """Steps/s of one of gymnasium's vector environments, over about that many steps in total."""
    envs: VectorEnv[Any, Any, Any] = kind([partial(TabletopEnv, TASK, config=CONFIG)] * num_envs)
    try:
        envs.action_space.seed(0)
        envs.reset(seed=0)
        envs.step(envs.action_space.sample())
        rounds = num_steps // num_envs
        began_s = time.perf_counter()
        for _ in range(rounds):
            envs.step(envs.action_space.sample())
        return rounds * num_envs / (time.perf_counter() - began_s)
    finally:
        envs.close()


def inference_s(num_worlds: int) -> float:
    """Median seconds of one bare forward pass of `nano` for all worlds, with instructions already encoded."""
    world = make_world(num_worlds)
    observation, _ = world.reset_to(episodes(num_worlds), range(num_worlds))
    policy = nano_policy(world)
    dtype = native_dtype(torch.device("cpu"))
    spent_s = []
    with torch.inference_mode(), torch.autocast("cpu", dtype, dtype != torch.float32):
        inputs = policy.processor.encode(observation)
        prefix = policy.model.backbone.read(inputs.instruction_ids, inputs.instruction_mask)  # padded, as in a policy
        for _ in range(12):
            began_s = time.perf_counter()
            policy.model(inputs, prefix)
            spent_s.append(time.perf_counter() - began_s)
    return float(np.median(spent_s[2:]))


def resident_mb(num_worlds: int) -> float:
    """Resident memory of this process in MB after that many worlds have stepped and rendered."""
    world = make_world(num_worlds)
    observation, _ = world.reset_to(episodes(num_worlds), range(num_worlds))
    world.step_chunk(random_policy(8, world).act(range(num_worlds), observation).actions)
    return 1000 * peak_memory_gb()


def in_own_process(function: Callable[..., float], *arguments: Any) -> float:
    """Measure in a new process, whose memory holds nothing from earlier measurements."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def measure(options: Options) -> Rates:
    """Measure every method, turn by turn."""
    contenders: dict[str, Callable[[], float]] = {}
    for count in (1, 2):
        for chunk in (1, 8):
            kind = f"{count} processes, chunk {chunk}"
            contenders[f"bare loop, {kind}"] = partial(bare_rates, chunk, options, count)
            contenders[f"ours, {kind}"] = partial(our_rate, options, count, partial(random_policy, chunk))
    contenders["ours, 1 processes, nano"] = partial(our_rate, options, 1, nano_policy)
    best = max(options.gym_envs, key=lambda num_envs: gym_rate(AsyncVectorEnv, num_envs, options.gym_steps))
    contenders["SyncVectorEnv"] = partial(gym_rate, SyncVectorEnv, best, 10 * options.gym_steps)
    contenders[f"AsyncVectorEnv, {best} processes"] = partial(gym_rate, AsyncVectorEnv, best, 10 * options.gym_steps)
    rates: Rates = {name: [] for name in contenders}
    for _ in track(range(options.repeats), "measuring"):
        for name, rate in contenders.items():
            rates[name].append(rate())
    return rates


def ratios(rates: Rates, inference_share_s: float) -> list[tuple[str, float, str]]:
    """Ratios of the rates within each turn: (what, median ratio, target)."""

    def median(above: str, below: str) -> float:
        return float(np.median(np.divide(rates[above], rates[below])))

    parallel = next(name for name in rates if name.startswith("Async"))
    found = []
    for count in (1, 2):
        for chunk in (1, 8):
            kind = f"{count} processes, chunk {chunk}"
            found.append((f"ours over the bare loop, {kind}", median(f"ours, {kind}", f"bare loop, {kind}"), "0.9"))
    for chunk, asked in ((1, "1.3"), (8, "3")):
        two, one = (f"ours, {count} processes, chunk {chunk}" for count in (2, 1))
        found.append((f"2 workers over 1, chunk {chunk}", median(two, one), "1.8"))
        found.append((f"ours over AsyncVectorEnv, 2 processes, chunk {chunk}", median(two, parallel), asked))
    limit = 1 / (1 / np.array(rates["bare loop, 1 processes, chunk 8"]) + inference_share_s)
    with_policy = float(np.median(np.divide(rates["ours, 1 processes, nano"], limit)))
    return [*found, ("nano in the loop over simulation plus inference, 1 process, chunk 8", with_policy, "0.7")]


def table(options: Options, rates: Rates) -> list[str]:
    """The page in docs/results/."""
    bare_act_s = in_own_process(inference_s, options.num_worlds)
    more_mb = in_own_process(resident_mb, 80) - in_own_process(resident_mb, 16)
    conditions = (
        f"Task {TASK}, two cameras of 96 x 96, {options.num_worlds} worlds per process, {options.repeats} turns. "
        f"{machine()['cores']} cores of {machine()['cpu']}; MuJoCo {mujoco.__version__}."
    )
    start_s, restart_s = np.median([start_and_restart_s() for _ in range(options.repeats)], axis=0)
    return [
        *head("Rollouts", "rollout", conditions),
        "",
        "| contender | steps/s, median | lowest | highest |",
        "|---|---|---|---|",
        *(f"| {name} | {np.median(r):.0f} | {min(r):.0f} | {max(r):.0f} |" for name, r in rates.items()),
        "",
        "| ratio, median of the turns | | asked |",
        "|---|---|---|",
        *(
            f"| {what} | {ratio:.2f} | {asked} |"
            for what, ratio, asked in ratios(rates, bare_act_s / (8 * options.num_worlds))
        ),
        "",
        "| other | | asked |",
        "|---|---|---|",
        f"| memory of one more world | {more_mb / 64:.2f} MB | 40 MB |",
        f"| Ray is up -> first trajectory of a new worker | {start_s:.1f} s | 5 s |",
        f"| worker killed -> first trajectory of its successor | {restart_s:.1f} s | 5 s |",
        f"| bare forward pass of nano for {options.num_worlds} worlds | {1000 * bare_act_s:.1f} ms | |",
    ]


def draw(rates: Rates, path: Path) -> None:
    """Medians as bars, lowest and highest as whiskers."""
    mpl.use("agg")
    names = list(rates)[::-1]
    medians = np.array([np.median(rates[name]) for name in names])
    spread = np.abs(np.array([(min(rates[name]), max(rates[name])) for name in names]).T - medians)
    colours = ["tab:orange" if n.startswith("ours") else "0.6" if n.startswith("bare") else "tab:blue" for n in names]
    figure, axes = plt.subplots(figsize=(8, 0.36 * len(names) + 0.8), layout="constrained")
    axes.barh(names, medians, xerr=spread, color=colours, ecolor="0.3", capsize=2)
    axes.bar_label(axes.containers[1], [f" {m:.0f}" for m in medians], padding=6)
    axes.set_xlabel("control steps of all worlds per second")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.12)
    figure.savefig(path, dpi=110)


def main(options: Options) -> None:
    """Measure, print and write."""
    rates = measure(options)
    lines = table(options, rates)
    print("\n".join(lines))
    if options.out is not None:
        picture = options.out.with_suffix(".png")
        draw(rates, picture)
        options.out.with_suffix(".md").write_text("\n".join([*lines, "", f"![rates]({picture.name})"]) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
