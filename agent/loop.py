"""The loop: collect -> update -> save -> evaluate, in one screen.

    collect     the scripted expert's demonstrations into the run's dataset, unless they are there already
    update      the learner, batch by batch; a checkpoint every `save_every` updates, and the last one
    evaluate    the saved policy on held-out episodes, and blind

Every step can be interrupted and goes on where it stopped: episodes count once, and update s sees the same batch and
the same random numbers whether or not a process died before it.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, field

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

from agent.demonstrations import DemonstrationsConfig, collect_demonstrations
from agent.learner import Learner, LearnerConfig
from agent.measure import EvaluationConfig, measure
from agent.run_folder import PRETRAINED, RunFolder
from agent.sft import SFTConfig, SFTEncoder, sft_loss
from envs.make import make_world
from rollout.batches import BatchStream, TrainingData
from vla_model.checkpoint import save_policy
from vla_model.config import SIZES
from vla_model.model import VLA
from vla_model.policy import VLAPolicy
from vla_model.processor import Processor

LOG_EVERY = 20
"""Updates between two points of a curve."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that decides a run."""

    seed: int = 0
    """Of the model's first weights, the batches and the augmentation."""
    model: str = "nano"
    """A name of vla_model.config.SIZES."""
    demonstrations: DemonstrationsConfig = field(default_factory=DemonstrationsConfig)
    collect_workers: int = 2
    """Ray workers that collect; 0 collects in this process."""
    sft: SFTConfig = field(default_factory=SFTConfig)
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    save_every: int = 1000
    """Updates between checkpoints."""


def train(config: RunConfig, run: RunFolder) -> None:
    """Fill the run's folder: dataset, checkpoints, TensorBoard events, films, eval_info.json.

    Raises:
        ValueError: the config names something that does not exist; nothing was started.
    """
    if config.model not in SIZES:
        raise ValueError(f"model {config.model!r} does not exist; models: {', '.join(SIZES)}")
    with run.phase("collect"):
        collect_demonstrations(config.demonstrations, run.dataset, config.collect_workers)
    with SummaryWriter(run.tensorboard) as log:
        with run.phase("update"):
            update(config, run, log)
        with run.phase("evaluate"):
            evaluate_run(config, run, log)


def update(config: RunConfig, run: RunFolder, log: SummaryWriter) -> None:
    """Train on the run's dataset from its last checkpoint, or from the beginning, to the last update."""
    data = TrainingData([run.dataset])
    torch.manual_seed(config.seed)
    model = VLA(SIZES[config.model](data.world_spec))
    processor = Processor.from_statistics(data.world_spec, data.stats, model.config.instruction_length)
    learner = Learner(model, config.learner)
    if (last := run.last_checkpoint()) is not None:
        learner.load(last)
    encode = SFTEncoder(processor, data.instructions, model.config, seed=config.seed)
    batches = data.batches(
        config.learner.batch_size,
        model.config.chunk_length,
        seed=config.seed,
        start_step=learner.num_updates_done,
    )
    try:
        with batches, Progress(*_COLUMNS) as progress:
            _run_updates(config, run, log, learner, processor, encode, batches, progress)
    except KeyboardInterrupt:
        _save(run, learner, processor)
        raise
    finally:
        learner.close()


def _run_updates(
    config: RunConfig,
    run: RunFolder,
    log: SummaryWriter,
    learner: Learner,
    processor: Processor,
    encode: SFTEncoder,
    batches: BatchStream,
    progress: Progress,
) -> None:
    last = config.learner.num_updates
    bar = progress.add_task("updates", total=last, completed=learner.num_updates_done)
    began_s = time.perf_counter()
    while learner.num_updates_done < last:
        batch = encode(next(batches), learner.num_updates_done)
        metrics = learner.update(batch, lambda model, part: sft_loss(model, part, config.sft))
        done = learner.num_updates_done
        progress.update(bar, completed=done, description=f"updates, loss {metrics['loss/total']:.3f}")
        if done % LOG_EVERY == 0 or done == last:
            metrics["learner/data_wait_share"] = batches.wait_s / (time.perf_counter() - began_s)
            for name, value in metrics.items():
                log.add_scalar(name, value, done)
        if done % config.save_every == 0 or done == last:
            _save(run, learner, processor)


def _save(run: RunFolder, learner: Learner, processor: Processor) -> None:
    """A checkpoint appears whole or not at all."""
    folder = run.checkpoint(learner.num_updates_done)
    if folder.exists():
        return
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    save_policy(part / PRETRAINED, learner.average, processor)
    learner.save(part)
    part.rename(folder)


def evaluate_run(config: RunConfig, run: RunFolder, log: SummaryWriter) -> None:
    """Measure the last checkpoint and write eval_info.json and films."""
    last = run.last_checkpoint()
    assert last is not None, "update leaves a checkpoint"
    asked = config.evaluation
    world = make_world(config.demonstrations.world, asked.num_worlds)
    policy = VLAPolicy.from_pretrained(last / PRETRAINED, version=int(last.name))
    policy.processor.check(world.world_spec)
    try:
        evaluation, controls = measure(policy, world, config.demonstrations.tasks or world.tasks, asked, run)
    finally:
        world.close()
    for name, value in (("success", evaluation), *controls.items()):
        log.add_scalar(f"evaluation/{name}", value.mean_over_tasks, int(last.name))


_COLUMNS: tuple[TextColumn | BarColumn | MofNCompleteColumn | TimeElapsedColumn | TimeRemainingColumn, ...] = (
    TextColumn("{task.description}"),
    BarColumn(),
    MofNCompleteColumn(),
    TimeElapsedColumn(),
    TimeRemainingColumn(),
)
