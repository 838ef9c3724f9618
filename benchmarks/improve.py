"""Cost of an iteration: an update against a bare forward and backward pass, and the time saved by overlap.

    python -m benchmarks.improve --out docs/results/improve.md

An update is everything `learn` does in an iteration, per row and pass: advantages, batches (from the disk, for rft),
guards, clipping, AdamW. The bare pass is the same model on the same rows with a loss of one line and nothing else:
computed by one thread with torch's own parallelism inside, and, as the learner does it, in two threads of one core
each.

Overlap is measured on whole runs of ppo, sequential and overlapped, each with one worker and a learner of one thread,
so two cores suffice for both. The fraction hidden is (sequential - overlapped) / the shorter of collecting and
learning.

Times are wall-clock, so nothing else may run. The policy is untrained: its episodes run to their step limit.

Shape letters: B rows of a batch.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from torch import Tensor

from agent.algorithms.cloning_config import RFTConfig
from agent.algorithms.method import Context
from agent.algorithms.ppo import ppo_advantages, predict
from agent.algorithms.ppo_config import PPOConfig, SurrogateConfig
from agent.algorithms.rollout_batch import Decisions, decisions
from agent.algorithms.sft import SFTBatch, SFTEncoder
from agent.evaluation.config import EvaluationConfig
from agent.learning.config import LearnerConfig
from agent.learning.gradients import Loss, Threads
from agent.learning.learner import Learner
from agent.report.curves import read_curves
from agent.runs.run_folder import RunFolder, machine, start_run
from agent.training.config import DemonstrationsConfig, ImproveConfig
from agent.training.demonstrations import collect_demonstrations
from agent.training.improve import improve
from agent.training.practice import PracticeConfig
from benchmarks.document import finish, head
from benchmarks.untrained import untrained
from envs.make import make_world
from envs.types import EpisodeSpec
from rollout.collect import collect
from rollout.dataset.batches import TrainingData
from rollout.workers.workers import WorkersConfig
from vla_model.model import VLA
from vla_model.policy import VLAPolicy
from vla_model.weights.checkpoint import load_policy, save_policy

TASK = "reach"
STEADY = LearnerConfig(batch_size=256, learning_rate=1e-5, warmup_updates=0, final_lr_share=1.0, ema_decay=0.0)
PPO = PPOConfig(warmup_iterations=0, surrogate=SurrogateConfig(max_kl=1e6))


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure."""

    episodes: int = 24
    """Episodes per iteration."""
    repeats: int = 5
    """Number of timed updates and passes; the median is reported."""
    iterations: int = 6
    """Iterations of each run."""
    out: Path | None = None
    """File to which the tables are written, in addition to the screen."""


def median_s(function: Callable[[], object], repeats: int) -> float:
    """Median seconds of a call, after one warm-up call."""
    times = []
    for _ in range(repeats + 1):
        began_s = time.perf_counter()
        function()
        times.append(time.perf_counter() - began_s)
    return float(np.median(times[1:]))


def bare_ppo(model: VLA, batch: Decisions) -> tuple[Tensor, dict[str, Tensor]]:
    """A loss that needs every output that ppo needs."""
    output = predict(model, batch)
    assert output.values is not None
    return output.actions.log_prob(batch.sampled).mean() + output.values.mean(), {}


def bare_cloning(model: VLA, batch: SFTBatch) -> tuple[Tensor, dict[str, Tensor]]:
    """The action loss alone."""
    return model(batch.inputs).actions.loss(batch.actions, batch.mask), {}


def bare_s(model: VLA, batch: Any, loss: Loss[VLA], repeats: int) -> tuple[float, float]:
    """Seconds of a pass over the batch: with torch's own parallelism, and in two threads of one core each."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    model.train()
    one, two = Threads(model, parameters, 1), Threads(model, parameters, 2)

    def alone() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            value, _ = loss(model, batch)
        torch.autograd.grad(value, parameters, allow_unused=True)

    with closing(one), closing(two):
        return median_s(alone, repeats), median_s(lambda: two(batch, loss), repeats)


def ppo_update(options: Options, first: Path, root: Path) -> str:
    """Row of ppo, on a rollout of the policy itself."""
    model, processor = load_policy(first, value_head=True)
    method = PPO.method(Context(processor=processor, suite="tabletop", run=RunFolder(root), n_action_steps=2))
    with closing(make_world("tabletop", 8)) as world:
        policy = VLAPolicy(model, processor, sample=True, dtype="float32")
        specs = [EpisodeSpec(suite="tabletop", task=TASK, seed=seed) for seed in range(options.episodes)]
        episodes = list(collect(policy, world, specs, n_action_steps=2))
    learner = Learner(model, STEADY)
    batch = decisions(ppo_advantages(episodes, PPO), processor)
    rows, passes = len(batch), PPO.surrogate.epochs
    update = median_s(lambda: method.learn(learner, episodes, 0), options.repeats) / passes / rows
    size = rows // max(1, round(rows / STEADY.batch_size))
    bare = bare_s(model, batch.rows(torch.arange(size)), bare_ppo, options.repeats)
    learner.close()
    return row("ppo", size, update, [seconds / size for seconds in bare])


def rft_update(options: Options, first: Path, root: Path) -> str:
    """Row of rft, on the expert's demonstrations."""
    model, processor = load_policy(first)
    data = root / "demonstrations"
    config = DemonstrationsConfig(tasks=(TASK,), episodes_per_task=options.episodes)
    collect_demonstrations(config, data, WorkersConfig(workers=0))
    updates, size = 10, STEADY.batch_size
    rft = RFTConfig(demonstrations=(str(data),), updates=updates)
    method = rft.method(Context(processor=processor, suite="tabletop", run=RunFolder(root), n_action_steps=2))
    learner = Learner(model, STEADY)
    update = median_s(lambda: method.learn(learner, [], 0), options.repeats) / updates / size
    training = TrainingData([data])
    with training.batches(size, model.config.chunk_size, seed=0) as batches:
        batch = SFTEncoder(processor, training.instructions, model.config, seed=0)(next(batches), 0)
    bare = bare_s(model, batch, bare_cloning, options.repeats)
    learner.close()
    return row("rft", size, update, [seconds / size for seconds in bare])


def row(name: str, size: int, update_s: float, bare_s: list[float]) -> str:
    """Milliseconds per row of a batch, and the ratio of an update to the faster bare pass."""
    cells = [f"{1000 * seconds:.2f}" for seconds in (update_s, *bare_s)]
    return f"| {name} | {size} | {' | '.join(cells)} | {update_s / min(bare_s):.2f} |"


def iteration_s(options: Options, first: Path, root: Path, *, overlap: bool) -> dict[str, float]:
    """Median seconds of the parts of an iteration; the first and the last, which overlap with nothing, are left out."""
    config = ImproveConfig(
        algorithm=PPO,
        init=str(first),
        practice=PracticeConfig(tasks=(TASK,), episodes_per_task=options.episodes, num_worlds=8),
        iterations=options.iterations,
        overlap=overlap,
        rollout=WorkersConfig(workers=1),
        learner=replace(STEADY, num_parts=1),
        evaluation=EvaluationConfig(episodes_per_task=1, controls=False, videos_per_task=0),
        evaluate_every=options.iterations,
        selection_episodes=1,
        collapse_share=0.0,
    )
    run = start_run(root / ("overlapped" if overlap else "in_turn"), config)
    improve(config, run)
    curves = {curve.tag: curve.values[1:-1] for curve in read_curves(run.tensorboard)}
    return {name: float(np.median(curves[f"time/{name}_s"])) for name in ("collect", "wait", "update")}


def overlap_table(options: Options, first: Path, root: Path) -> Iterator[str]:
    """Table of a sequential and an overlapped iteration."""
    in_turn, overlapped = (iteration_s(options, first, root, overlap=overlap) for overlap in (False, True))
    whole = [parts["wait"] + parts["update"] for parts in (in_turn, overlapped)]
    hidden = (whole[0] - whole[1]) / min(in_turn["collect"], in_turn["update"])
    yield "| | collecting s | learning s | iteration s |"
    yield "|---|---|---|---|"
    for name, parts, seconds in zip(("in turn", "overlapped"), (in_turn, overlapped), whole, strict=True):
        yield f"| {name} | {parts['collect']:.1f} | {parts['update']:.1f} | {seconds:.1f} |"
    yield ""
    yield (
        f"Overlap shortens an iteration by {whole[0] - whole[1]:.1f} s, {100 * hidden:.0f} % of the shorter phase "
        "(more than 100 % is noise)."
    )


def main(options: Options) -> None:
    """Measure, print and write."""
    with closing(make_world("tabletop")) as world, tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        model, processor = untrained(world.world_spec)
        save_policy(root / "first", model, processor)
        about = machine()
        conditions = f"{about['cores']} cores of {about['cpu']}, torch {torch.__version__}. Wall-clock, medians."
        lines = [
            *head("Cost of an iteration", "improve", conditions),
            "",
            "Milliseconds per row and pass; the ratio is to the faster bare pass:",
            "",
            "| | B | update | bare, torch's threads | bare, two threads | ratio |",
            "|---|---|---|---|---|---|",
            ppo_update(options, root / "first", root / "ppo"),
            rft_update(options, root / "first", root / "rft"),
            "",
            f"An iteration of ppo, {options.episodes} episodes, one worker and a learner of one thread:",
            "",
            *overlap_table(options, root / "first", root),
        ]
    finish(lines, options.out)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
