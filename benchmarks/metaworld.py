"""Speed of Meta-World: control steps with one frame each, by sensor and by number of parallel worlds.

    python -m benchmarks.metaworld --out docs/results/metaworld_speed.md

Scripted experts act, and every step is rendered, as in demonstrations. Run it on an idle machine.
"""

from __future__ import annotations

import itertools
import time
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tyro

from benchmarks.document import finish, head
from envs.suites.hosted.quality import Quality
from envs.suites.metaworld.sensor import FAST, PUBLISHED, Sensor, View
from envs.suites.metaworld.world import MetaworldConfig, MetaworldWorld
from envs.types import EpisodeSpec


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure."""

    tasks: tuple[str, ...] = ("push-v3", "door-open-v3", "peg-insert-side-v3")
    seconds: float = 8.0
    """Duration of each row's measurement."""
    worlds: tuple[int, ...] = (1, 2, 4, 8)
    out: Path | None = None
    """File to which the tables are written, in addition to the screen."""


SENSORS: dict[str, Sensor] = {
    "fast": FAST,
    "fast, meshes as they are": replace(FAST, quality=Quality()),
    "the whole frame, 128 x 128": replace(FAST, views=(View(whole_px=128, width_px=128, height_px=128),)),
    "published": PUBLISHED,
}


def steps_per_s(num_worlds: int, sensor: Sensor, tasks: tuple[str, ...], seconds: float) -> tuple[float, float]:
    """Control steps per second, each rendered, and seconds per reset; all worlds together."""
    seeds = itertools.count()
    with closing(MetaworldWorld(num_worlds, MetaworldConfig(sensor=sensor))) as world:

        def begin(worlds: list[int]) -> float:
            began_s = time.perf_counter()
            specs = [
                EpisodeSpec(suite=world.suite, task=tasks[(s := next(seeds)) % len(tasks)], seed=s) for _ in worlds
            ]
            world.reset_to(specs, worlds)
            return time.perf_counter() - began_s

        begin(list(range(num_worlds)))  # starts the processes
        world.step_chunk(world.expert_action()[:, None])  # compiles the shaders
        resets_s, steps, began_s = [begin(list(range(num_worlds)))], 0, time.perf_counter()
        while time.perf_counter() - began_s < seconds:
            result = world.step_chunk(world.expert_action()[:, None])
            steps += int(result.num_steps.sum())
            if ended := np.flatnonzero(result.done).tolist():
                resets_s.append(begin(ended))
        stepping_s = time.perf_counter() - began_s - sum(resets_s[1:])
    return steps / stepping_s, float(np.mean(resets_s))


def main(options: Options) -> None:
    """Measure, print and write."""
    lines = head(
        "Cost of Meta-World",
        "metaworld",
        "Control steps per second, each with its frame, of all worlds together, without resets. A reset simulates 500 "
        "physics steps, and uploads another task's meshes to OpenGL where the task changes, as here.",
    )
    lines += ["", "One world:", "", "| sensor | steps/s | reset ms |", "|---|---|---|"]
    for name, sensor in SENSORS.items():
        speed, reset_s = steps_per_s(1, sensor, options.tasks, options.seconds)
        lines.append(f"| {name} | {speed:.0f} | {1e3 * reset_s:.0f} |")
    lines += ["", "The fast sensor:", "", "| worlds | steps/s | reset ms |", "|---|---|---|"]
    for count in options.worlds:
        speed, reset_s = steps_per_s(count, FAST, options.tasks, options.seconds)
        lines.append(f"| {count} | {speed:.0f} | {1e3 * reset_s:.0f} |")
    finish(lines, options.out)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
