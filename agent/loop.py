"""The loop: collect -> update -> save -> evaluate, in one screen.

    collect     the scripted expert's demonstrations into the run's dataset, unless they are there already
    update      the learner, batch by batch; a checkpoint every `save_every` updates, and the last one
    evaluate    the saved policy on held-out episodes, and blind

Every step can be interrupted and goes on where it stopped: episodes count once, and update s sees the same batch and
the same random numbers whether or not a process died before it.
"""

from __future__ import annotations

import shutil
import signal
import threading
import time
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated

import torch
import tyro
from torch.utils.tensorboard import SummaryWriter

from agent.demonstrations import DemonstrationsConfig, collect_demonstrations
from agent.evaluate import Evaluation
from agent.learner import Learner, LearnerConfig
from agent.measure import EvaluationConfig, Measured, measure
from agent.progress import progress_bars
from agent.run_folder import PRETRAINED, RunFolder
from agent.sft import SFTConfig, SFTEncoder, sft_loss
from envs.make import make_world
from rollout.batches import TrainingData
from rollout.workers import WorkersConfig
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
    rollout: Annotated[WorkersConfig, tyro.conf.arg(name="")] = field(default_factory=WorkersConfig)
    """The processes that collect and evaluate; on the command line without a prefix: --workers, --ray-address."""
    sft: SFTConfig = field(default_factory=SFTConfig)
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    save_every: int = 1000
    """Updates between checkpoints."""


def train(config: RunConfig, run: RunFolder) -> tuple[Evaluation, dict[str, Evaluation]]:
    """Fill the run's folder: dataset, checkpoints, TensorBoard events, films, eval_info.json.

    Returns:
        The evaluation of the last checkpoint, and the blind controls by name.

    Raises:
        ValueError: the config names something that does not exist; nothing was started.
    """
    if config.model not in SIZES:
        raise ValueError(f"model {config.model!r} does not exist; models: {', '.join(SIZES)}")
    with run.phase("collect") as figures:
        died = collect_demonstrations(config.demonstrations, run.dataset, config.rollout).workers
        figures.update(workers_replaced=len(died.deaths), episodes_set_aside=len(died.set_aside))
    with SummaryWriter(run.tensorboard) as log:
        with run.phase("update") as figures:
            figures.update(update(config, run, log))
        with run.phase("evaluate") as figures:
            evaluation, controls = evaluate_run(config, run, log)
            figures.update(control_steps_per_s=evaluation.steps_per_s, frames_per_s=evaluation.frames_per_s)
    return evaluation, controls


def update(config: RunConfig, run: RunFolder, log: SummaryWriter) -> dict[str, float]:
    """Train on the run's dataset from its last checkpoint, or from the beginning, to the last update.

    Returns:
        How fast it went.
    """
    data = TrainingData([run.dataset])
    torch.manual_seed(config.seed)
    model = VLA(SIZES[config.model](data.world_spec))
    processor = Processor.from_statistics(data.world_spec, data.stats, model.config.instruction_length)
    learner = Learner(model, config.learner)
    if (last := run.last_checkpoint()) is not None:
        learner.load(last)
    encode = SFTEncoder(processor, data.instructions, model.config, seed=config.seed)
    first, began_s = learner.num_updates_done, time.perf_counter()
    figures: dict[str, float] = {}
    batches = data.batches(config.learner.batch_size, model.config.chunk_length, seed=config.seed, start_step=first)
    with closing(learner), batches, progress_bars() as progress, _interrupts_wait() as interrupted:
        bar = progress.add_task("updates", total=config.learner.num_updates, completed=first)
        while learner.num_updates_done < config.learner.num_updates:
            batch = encode(next(batches), learner.num_updates_done)
            metrics = learner.update(batch, lambda model, part: sft_loss(model, part, config.sft))
            done = learner.num_updates_done
            progress.update(bar, completed=done, description=f"updates, loss {metrics['loss/total']:.3f}")
            wall_s = time.perf_counter() - began_s
            figures = {
                "samples_per_s": (done - first) * config.learner.batch_size / wall_s,
                "data_wait_share": batches.wait_s / wall_s,
            }
            if done % LOG_EVERY == 0:
                for name, value in (metrics | {f"learner/{key}": figure for key, figure in figures.items()}).items():
                    log.add_scalar(name, value, done)
            if done % config.save_every == 0 or done == config.learner.num_updates or interrupted():
                _save(run, learner, processor)
            if interrupted():
                raise KeyboardInterrupt
    return figures


@contextmanager
def _interrupts_wait() -> Generator[Callable[[], bool]]:
    """Ctrl-C while an update is half done waits for its end; a second one does not.

    Yields a function that says whether there was one.
    """
    came: list[int] = []

    def remember(signum: int, frame: object) -> None:
        del frame
        came.append(signum)
        signal.signal(signal.SIGINT, before)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = signal.signal(signal.SIGINT, remember)
    try:
        yield lambda: bool(came)
    finally:
        signal.signal(signal.SIGINT, before)


def _save(run: RunFolder, learner: Learner[VLA], processor: Processor) -> None:
    """A checkpoint appears whole or not at all."""
    folder = run.checkpoint(learner.num_updates_done)
    if folder.exists():
        return
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    save_policy(part / PRETRAINED, learner.average, processor)
    learner.save(part)
    part.rename(folder)


def evaluate_run(config: RunConfig, run: RunFolder, log: SummaryWriter) -> tuple[Evaluation, dict[str, Evaluation]]:
    """Measure the last checkpoint and write eval_info.json and films."""
    last = run.last_checkpoint()
    assert last is not None, "update leaves a checkpoint"
    worlds = partial(make_world, config.demonstrations.world)
    with closing(worlds(1)) as world:
        tasks = config.demonstrations.tasks or world.tasks
        policy = VLAPolicy.from_pretrained(last / PRETRAINED, version=int(last.name))
        policy.processor.check(world.world_spec)
    measured = Measured(worlds, lambda _: policy, config.rollout)
    evaluation, controls = measure(measured, tasks, config.evaluation, run)
    for name, value in (("success", evaluation), *controls.items()):
        log.add_scalar(f"evaluation/{name}", value.mean_over_tasks, int(last.name))
    return evaluation, controls
