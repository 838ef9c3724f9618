"""Success rate of LIBERO's scripted expert, per task; run in LIBERO's interpreter.

    MUJOCO_GL=egl LP_NUM_THREADS=0 OMP_NUM_THREADS=1 PYTHONPATH=. .venv-libero/bin/python -m benchmarks.libero_expert \
        --suites object goal 10 spatial --seeds official --episodes 50 --processes 2 --results runs/libero_expert.jsonl

First try, within the suites' step limits; nothing is rendered. Every episode is a line of the results file as soon as
it has ended, and an episode that is in the file is not run again: a killed run goes on where it was. Episodes are run
in blocks of ten per task, all tasks' first blocks first, so a part of a run is a fair sample of the whole.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from agent.evaluation.statistics import Proportion
from envs.suites.libero.tasks import FIRST_OFFICIAL_SEED, HORIZONS, SUITES, TRAIN, VARIATIONS, suite_of, variations_of

BLOCK = 10
FIRST_SEED = {"official": FIRST_OFFICIAL_SEED, "seeded": 0}
"""Official initial states, or those that the suite's own reset samples."""


class Block(NamedTuple):
    """Episodes of one task that a process runs one after the other."""

    task: str
    variation: str
    seeds: tuple[int, ...]
    results: Path


def play(block: Block) -> None:
    """Run a block's episodes and append a line for each to the results."""
    from envs.suites.libero.expert import Expert
    from envs.suites.libero.simulation import Simulation

    simulation = Simulation(block.task, block.variation)
    expert = Expert(simulation)
    horizon = HORIZONS[suite_of(block.task)]
    for seed in block.seeds:
        start_s = time.process_time()
        simulation.begin(seed)
        expert.begin()
        while simulation.num_steps < horizon and not simulation.success and not expert.gave_up:
            simulation.step(expert.action())
        row = {
            "task": block.task,
            "variation": block.variation,
            "seed": seed,
            "success": simulation.success,
            "num_steps": simulation.num_steps,
            "cpu_s": round(time.process_time() - start_s, 2),
            "log": expert.log,
        }
        with block.results.open("a") as file:
            file.write(json.dumps(row) + "\n")


def read(results: Path) -> list[dict[str, Any]]:
    """The episodes that were run, each once, also where two runs wrote to one file."""
    lines = results.read_text().splitlines() if results.exists() else []
    rows = [json.loads(line) for line in lines]
    return list({(row["task"], row["variation"], row["seed"]): row for row in rows}.values())


def blocks(options: argparse.Namespace) -> Iterator[Block]:
    """What is left to do."""
    done = {(row["task"], row["variation"], row["seed"]) for row in read(options.results)}
    tasks = [task for suite in options.suites for task in SUITES[suite]]
    first = FIRST_SEED[options.seeds]
    for start in range(0, options.episodes, BLOCK):
        numbers = range(start, min(start + BLOCK, options.episodes))
        for task in tasks:
            seeds = [first + k for k in numbers if (task, options.variation, first + k) not in done]
            if seeds and options.variation in variations_of(task):
                yield Block(task, options.variation, tuple(seeds), options.results)


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Lines of Markdown: one per suite and kind of seed, then one per task."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in rows:
        kind = "official" if row["seed"] >= FIRST_OFFICIAL_SEED else "seeded"
        groups.setdefault((suite_of(row["task"]), row["variation"], kind), []).append(row)
    yield "| suite | variation | states | success | 95 % interval | median steps | CPU s per episode |"
    yield "|---|---|---|---|---|---|---|"
    for (suite, variation, kind), group in groups.items():
        yield f"| {suite} | {variation} | {kind} | " + " | ".join(_cells(group)) + " |"
    for (suite, variation, kind), group in groups.items():
        yield from (
            "",
            f"### {suite}, {variation}, {kind} states",
            "",
            "| task | success | median steps |",
            "|---|---|---|",
        )
        for task in SUITES[suite]:
            if of_task := [row for row in group if row["task"] == task]:
                success, _, steps, _ = _cells(of_task)
                yield f"| {task} | {success} | {steps} |"


def _cells(rows: list[dict[str, Any]]) -> tuple[str, str, str, str]:
    proportion = Proportion.of(row["success"] for row in rows)
    low, high = proportion.interval
    steps = [row["num_steps"] for row in rows if row["success"]]
    return (
        f"{proportion.successes}/{proportion.episodes}",
        f"{100 * low:.1f} to {100 * high:.1f} %",
        f"{np.median(steps):.0f}" if steps else "",
        f"{np.mean([row['cpu_s'] for row in rows]):.2f}",
    )


def main() -> None:
    """Run what is left and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suites", nargs="+", choices=SUITES, default=["object", "goal", "10", "spatial"])
    parser.add_argument("--variation", choices=VARIATIONS, default=TRAIN)
    parser.add_argument("--seeds", choices=FIRST_SEED, default="official")
    parser.add_argument("--episodes", type=int, default=50, help="per task")
    parser.add_argument("--processes", type=int, default=2, help="0: only print the tables")
    parser.add_argument("--results", type=Path, required=True)
    options = parser.parse_args()
    if options.processes:
        options.results.parent.mkdir(parents=True, exist_ok=True)
        with multiprocessing.get_context("spawn").Pool(options.processes, maxtasksperchild=1) as pool:
            for _ in pool.imap_unordered(play, blocks(options)):
                pass
    print("\n".join(table(read(options.results))))


if __name__ == "__main__":
    main()
