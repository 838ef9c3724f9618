"""Processor time and memory of LIBERO's worlds; run in LIBERO's interpreter.

    LP_NUM_THREADS=0 OMP_NUM_THREADS=1 PYTHONPATH=. .venv-libero/bin/python -m benchmarks.libero

One process acts at random in one task per suite. It counts the process's own time, so other load does not matter much.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from envs.suites.libero.episodes import Episodes
from envs.suites.libero.sensor import CAMERAS, FAST, PUBLISHED, Sensor
from envs.suites.libero.tasks import SUITES

SENSORS = {"fast": FAST, "published": PUBLISHED}


def seconds(call: Callable[[], object]) -> float:
    """Processor time of this process in a call."""
    began_s = time.process_time()
    call()
    return time.process_time() - began_s


def resident_mb() -> int:
    """Memory of this process that is not shared with others."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in status if line.startswith("RssAnon"))


def row(name: str, sensor: Sensor, suite: str, num_steps: int) -> str:
    """A line of the table: a new world's first task of the suite."""
    episodes = Episodes(sensor=asdict(sensor), any_mujoco=False)
    frames = [np.zeros((sensor.size_px, sensor.size_px, 3), np.uint8) for _ in CAMERAS]
    begin = {"do": "begin", "task": SUITES[suite][0], "variation": "train", "seed": 0}
    new_s = seconds(lambda: episodes.answer(begin, frames))
    again_s = seconds(lambda: episodes.answer(begin | {"seed": 1}, frames))
    actions = np.random.default_rng(0).uniform(-0.5, 0.5, (num_steps, 7))

    def act(chunk: int) -> float:
        episodes.answer(begin, frames)
        chunks = [block.tolist() for block in np.split(actions, num_steps // chunk)]
        return seconds(lambda: [episodes.answer(step | {"actions": block}, frames) for block in chunks]) / num_steps

    step = {"do": "step", "render_ended": True}
    pair_s = act(1) - (step_s := act(num_steps))
    speeds = f"{1 / step_s:.0f} | {1 / pair_s:.0f} | {new_s:.1f} | {again_s:.2f}"
    return f"| {name} | {suite} | {speeds} | {resident_mb()} |"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suites", nargs="+", choices=tuple(SUITES), default=tuple(SUITES))
    parser.add_argument("--sensors", nargs="+", choices=tuple(SENSORS), default=("fast",))
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args()
    Episodes.prepare({"any_mujoco": False})
    print("| sensor | suite | steps/s | frame pairs/s | new task s | its next episode s | MB of its own |")
    print("|---|---|---|---|---|---|---|")
    for name in options.sensors:
        for suite in options.suites:
            print(row(name, SENSORS[name], suite, options.steps), flush=True)


if __name__ == "__main__":
    main()
