"""Costs and savings of number formats: memory, latency and success rate of policies at inference.

    python -m benchmarks.precision --models nano smol --policy runs/demo --out docs/results/precision.md

Models have random weights here, which cost the same as trained ones. Memory: the size of the weights, and the peak
resident memory of a process that loads a saved policy and acts (benchmarks/plan.py). Latency: full inference for one
world, from frames to actions, instruction cached; the median CPU time, one thread.

With --policy, success: the trained policy in every format on the same episodes, each compared with float32 episode by
episode.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro

from agent.commands.shared.acting import ActingConfig, Folder, acting
from agent.evaluation.compare import compare_episodes
from agent.evaluation.evaluate import Evaluation, evaluation_specs
from agent.evaluation.measure import run_specs
from agent.runs.policies import load_policy
from agent.runs.run_folder import machine
from benchmarks.document import finish, head
from benchmarks.model import median_ms, noise
from benchmarks.plan import Case, measured_gb
from benchmarks.untrained import unit_statistics
from envs.make import make_world
from envs.types import WorldSpec
from rollout.workers.workers import WorkersConfig
from vla_model.create import shape_of
from vla_model.inputs.processor import Processor
from vla_model.model import VLA
from vla_model.numerics.dtypes import DtypeName
from vla_model.policy import VLAPolicy
from vla_model.sizes import ModelConfig
from vla_model.weights.weight_formats import hold_weights

FORMATS: tuple[DtypeName, ...] = ("float32", "bfloat16", "int8")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure."""

    models: tuple[str, ...] = ("nano", "smol")
    """Models: sizes, or smol."""
    policy: str | None = None
    """A run whose success is measured in every format."""
    episodes: int = 50
    """Episodes per task, for the success rate."""
    workers: int = 2
    """Worker processes that run the episodes."""
    repeats: int = 30
    """Number of timed inferences."""
    out: Path | None = None
    """File to which the tables are written, in addition to the screen."""


def costs(options: Options, world_spec: WorldSpec) -> Iterator[str]:
    """Table of memory and latency by size and format."""
    yield "| model | parameters | weights in | weights MB | process GB | decision ms | actions differ by |"
    yield "|---|---|---|---|---|---|---|"
    for name in options.models:
        whole = None
        for dtype in FORMATS:
            policy = random_policy(name, world_spec, dtype)
            tensors = (*policy.model.parameters(), *policy.model.buffers())
            numbers = sum(t.numel() for t in tensors if t.dtype in (torch.float32, torch.bfloat16, torch.int8))
            megabytes = sum(t.numel() * t.element_size() for t in tensors) / 1e6
            observation = noise(world_spec, 1)
            policy.begin([0], observation["instruction"], seeds=(0,))
            actions = policy.act([0], observation).actions
            whole = actions if whole is None else whole
            differ = np.abs(actions - whole).mean() / whole.std()
            milliseconds = median_ms(lambda: policy.act([0], observation), options.repeats)  # noqa: B023
            gb = measured_gb(Case(model=name, dtype=dtype))
            yield (
                f"| {name} | {numbers / 1e6:.1f} M | {dtype} | {megabytes:.1f} | {gb:.2f} | {milliseconds:.1f} "
                f"| {100 * differ:.1f} % |"
            )


def random_policy(name: str, world_spec: WorldSpec, dtype: DtypeName) -> VLAPolicy:
    """A policy with random weights, the same in every format."""
    torch.manual_seed(0)
    model = VLA(shape_of(ModelConfig(name=name), world_spec)).eval()
    hold_weights(model, dtype)
    return VLAPolicy(model, Processor.from_statistics(world_spec, unit_statistics(world_spec)), dtype=dtype)


def success(options: Options, policy: str) -> Iterator[str]:
    """Table of a trained policy's success by format."""
    found: dict[DtypeName, Evaluation] = {}
    for dtype in FORMATS:
        config = ActingConfig(episodes=options.episodes, dtype=dtype)
        source = Folder(policy, load_policy(policy, dtype))
        with acting(policy, source, config, WorkersConfig(workers=options.workers)) as (setup, tasks, n_action_steps):
            specs = evaluation_specs(setup.example.suite, tasks, options.episodes)
            with setup.pool(config.num_worlds) as workers:
                evaluation = config.evaluation(n_action_steps)
                found[dtype] = run_specs(workers, setup.example, evaluation, dtype, specs)
    yield "| weights in | success % | 95 % interval | change | 95 % interval | won, lost | p |"
    yield "|---|---|---|---|---|---|---|"
    first = {r.spec.id: r.success for r in found["float32"].results}
    for dtype, evaluation in found.items():
        low, high = evaluation.success.interval
        row = f"| {dtype} | {100 * evaluation.success.rate:.1f} | {100 * low:.1f} to {100 * high:.1f} "
        compared = compare_episodes(first, {r.spec.id: r.success for r in evaluation.results})
        below, above = compared.difference_interval
        yield row + (
            f"| {compared.difference:+.1f} | {below:+.1f} to {above:+.1f} | {len(compared.won)}, {len(compared.lost)} "
            f"| {compared.p_value:.2g} |"
            if dtype != "float32"
            else "| | | | |"
        )


def main(options: Options) -> None:
    """Measure, print and write."""
    torch.set_num_threads(1)
    with closing(make_world("tabletop")) as world:
        world_spec = world.world_spec
    conditions = f"One thread of {machine()['cpu']}, torch {torch.__version__}."
    lines = [*head("Number formats at inference", "precision", conditions), "", *costs(options, world_spec)]
    lines += ["", "Differences of actions: their mean, as a share of the actions' standard deviation."]
    if options.policy is not None:
        run = Path(options.policy).resolve().name
        lines += ["", f"Success of {run} in {options.episodes} episodes of each task, against float32:", ""]
        lines += success(options, options.policy)
    finish(lines, options.out)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
