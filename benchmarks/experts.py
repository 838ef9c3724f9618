"""Success rate and speed of the tabletop's scripted experts: 100 episodes per task and variation, as a table.

    python -m benchmarks.experts --variations train vision combination execution --out docs/results/experts.md

The episodes are evaluation's (seeds of 1 000 000 and above); nothing is rendered, since the experts use no images.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import tyro

from agent.evaluation.evaluate import Evaluation, evaluate, evaluation_specs
from benchmarks.document import head
from envs.tabletop.tasks import TASKS
from envs.tabletop.world import TabletopConfig, TabletopWorld
from rollout.collect import collect
from rollout.expert import ExpertPolicy


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure."""

    variations: tuple[str, ...] = ("train",)
    """Variations, a table for each: train, vision, paraphrase, combination, execution, synonym."""
    episodes_per_task: int = 100
    num_worlds: int = 24
    out: Path | None = None
    """File to which the tables are written, in addition to the screen."""


def measure(options: Options, variation: str) -> Evaluation:
    """Run the experts over one variation."""
    world = TabletopWorld(options.num_worlds, TabletopConfig(cameras=()))
    specs = evaluation_specs(world.suite, world.tasks, options.episodes_per_task, variation)
    return evaluate(partial(collect, ExpertPolicy(world), world), world, specs)


def table(evaluation: Evaluation) -> Iterator[str]:
    """Lines of Markdown: one per task, and one for all."""
    yield "| task | success | 95 % interval | median steps | step limit | failures |"
    yield "|---|---|---|---|---|---|"
    for task, results in evaluation.by(lambda r: r.spec.task).items():
        proportion = evaluation.per_task[task]
        steps = np.median([r.num_steps for r in results if r.success])
        names = [r.failure for r in results if r.failure is not None]
        failures = ", ".join(f"{name} {names.count(name)}" for name in sorted(set(names)))
        low, high = proportion.interval
        yield (
            f"| {task} | {proportion.successes}/{proportion.episodes} | {100 * low:.1f} to {100 * high:.1f} % "
            f"| {steps:.0f} | {TASKS[task].max_steps} | {failures} |"
        )
    total = evaluation.success
    low, high = total.interval
    yield f"| all | {total.successes}/{total.episodes} | {100 * low:.1f} to {100 * high:.1f} % | | | |"


def main(options: Options) -> None:
    """Measure, print and write."""
    lines = head(
        "Scripted experts of the tabletop suite",
        "experts",
        "Success in held-out episodes; Wilson intervals; median steps of the successes.",
    )
    for variation in options.variations:
        lines += ["", f"## Variation: {variation}", "", *table(measure(options, variation))]
        print("\n".join(lines[-len(TASKS) - 5 :]), flush=True)
    if options.out is not None:
        options.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
