"""Evaluation through a server against what the server's own batched inference and the simulation allow.

    python -m benchmarks.remote --policy policies/metaworld_mt50 --tasks button-press-v3 --out docs/results/remote.md

The same episodes are run in this process, where a batch of all worlds is one call of the policy, and through `llamarm
serve` in another process with one connection for each world. In this process the time is that of simulation and batched
inference alone, so its episodes per second are the limit. Both are repeated in turn, and the medians compared.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import tyro

from agent.evaluation.evaluate import evaluation_specs
from agent.runs.policies import load_policy, steps_to_execute, where_to_act
from agent.serve.client import ServedPolicy
from benchmarks.clients import served
from benchmarks.document import finish, head
from envs.make import make_world
from envs.types import EpisodeSpec
from envs.world import World
from rollout.collect import collect
from vla_model.types import Policy


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure."""

    policy: Path
    """A run, a checkpoint or a policy's folder."""
    tasks: tuple[str, ...] = ()
    """Default: the policy's."""
    world: str | None = None
    """Default: the policy's."""
    episodes_per_task: int = 16
    num_worlds: int = 8
    repeats: int = 3
    out: Path | None = None
    """File that the table is written to besides the screen."""


@dataclass(frozen=True)
class Pass:
    """One pass over the episodes."""

    episodes_per_s: float
    decision_ms: float
    """Median duration of the policy's call, for all worlds that it decided for."""
    outcomes: tuple[tuple[str, bool, int], ...]
    """(id, success, steps) of each episode."""


def measured(policy: Policy, world: World, specs: Sequence[EpisodeSpec], n_action_steps: int) -> Pass:
    """Run the episodes once."""
    began_s = time.perf_counter()
    found = sorted(collect(policy, world, specs, n_action_steps=n_action_steps), key=lambda t: t.spec.id)
    wall_s = time.perf_counter() - began_s
    decisions_s = np.concatenate([t.decision_s for t in found if t.decision_s is not None])
    outcomes = tuple((t.spec.id, t.success, t.num_steps) for t in found)
    return Pass(len(found) / wall_s, 1000 * float(np.median(decisions_s)), outcomes)


def main(options: Options) -> None:
    """Measure, print and write."""
    name = str(options.policy)
    here = load_policy(name)
    steps = steps_to_execute(name, here, None)
    world_name, tasks = where_to_act(name, here.processor.deployment, options.world, options.tasks)
    with closing(make_world(world_name, options.num_worlds)) as world, served(options.policy, steps) as url:
        specs = evaluation_specs(world.suite, tasks or world.tasks, options.episodes_per_task)
        run = partial(measured, world=world, specs=specs, n_action_steps=steps)
        with ServedPolicy(url) as there:
            run(here), run(there)  # processes start, caches fill
            passes = [(run(here), run(there)) for _ in range(options.repeats)]
    local, remote = zip(*passes, strict=True)
    rates = [statistics.median(each.episodes_per_s for each in side) for side in (local, remote)]
    latencies = [statistics.median(each.decision_ms for each in side) for side in (local, remote)]
    same = sum(a == b for a, b in zip(local[-1].outcomes, remote[-1].outcomes, strict=True))
    how = (
        f"{len(specs)} episodes of {world_name} ({', '.join(tasks)}), {options.num_worlds} worlds, {steps} actions per "
        f"decision; medians of {options.repeats} passes each, in turn."
    )
    lines = [
        *head("Evaluation through a server", "remote", how),
        "",
        "| policy | episodes/s | decision for all worlds, ms |",
        "|---|---|---|",
        f"| in this process: simulation and batched inference alone | {rates[0]:.2f} | {latencies[0]:.1f} |",
        f"| through the server, a connection for each world | {rates[1]:.2f} | {latencies[1]:.1f} |",
        "",
        f"Through the server: {100 * rates[1] / rates[0]:.0f} % of the limit (at least 80 % is the aim).",
        "",
        f"{same} of {len(specs)} episodes have the same outcome after the same number of steps.",
    ]
    finish(lines, options.out)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
