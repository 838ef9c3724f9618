"""The training loop on demonstrations: collect -> update -> save -> evaluate, in one screen.

    collect     the scripted expert's missing demonstrations into the run's dataset, unless recorded datasets are given
    update      the learner, batch by batch, in one or several processes; a checkpoint every `save_every` updates, and
                the last one
    evaluate    the last checkpoint on held-out episodes, and its blind controls

Every step can be interrupted and resumed: no episode is collected twice, and update s sees the same batch and random
numbers whether or not a process died before it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from agent.algorithms.sft import SFTEncoder, sft_loss
from agent.evaluation.evaluate import Evaluation
from agent.evaluation.measure import EvaluationSetup, measure
from agent.learning.bad_batch import saved_if_not_finite
from agent.learning.learner import Learner
from agent.runs.checks import check_config
from agent.runs.interrupts import interrupts_wait
from agent.runs.messages import say
from agent.runs.progress import progress_bars
from agent.runs.run_folder import PRETRAINED, RunFolder
from agent.training.checkpoints import save_checkpoint
from agent.training.config import RunConfig
from agent.training.demonstrations import collect_demonstrations
from agent.training.held_out import held_out_roots, measure_held_out
from agent.training.recordings import check_recordings, say_changes, say_inferred, say_left_out, training_data
from agent.training.trackers import MetricLog, metric_log
from envs.errors import UserError
from envs.make import check_device, make_world
from rollout.dataset.batches import TrainingData
from rollout.distributed import Process, run_in_processes
from vla_model.create import check_model, create_policy, shape_of
from vla_model.files.deployment import Deployment, check_n_action_steps
from vla_model.inputs.processor import Processor
from vla_model.model import VLA
from vla_model.numerics.precision import best_device
from vla_model.policy import VLAPolicy, on_best_device
from vla_model.weights.checkpoint import load_config, load_shape
from vla_model.weights.finetune import prepare
from vla_model.weights.initial import check_initial_weights, load_initial_weights

LOG_EVERY = 20
"""Updates between two points of a curve."""


def train(config: RunConfig, run: RunFolder) -> tuple[Evaluation | None, dict[str, Evaluation]]:
    """Run it, and write dataset, checkpoints, TensorBoard events, videos, eval_info.json.

    Returns:
        The evaluation of the last checkpoint, None if episodes_per_task is 0, and the blind controls by name.

    Raises:
        UserError: see check_run; nothing was started.
    """
    with ready(config, run) as work:
        return work()


@contextmanager
def ready(
    config: RunConfig, run: RunFolder
) -> Generator[Callable[[], tuple[Evaluation | None, dict[str, Evaluation]]]]:
    """Check everything before the run starts, and yield the function that runs it.

    Raises:
        UserError: see check_run.
    """
    check_run(config, run)
    yield partial(_train, config, run)


def _train(config: RunConfig, run: RunFolder) -> tuple[Evaluation | None, dict[str, Evaluation]]:
    if not config.data:
        with run.phase("collect") as figures:
            died = collect_demonstrations(config.demonstrations, run.dataset, config.rollout).workers
            figures.update(workers_replaced=len(died.deaths), episodes_set_aside=len(died.set_aside))
    with run.phase("update") as figures:
        figures.update(update(config, run))
    if held_out_roots(config):
        with run.phase("action error"):
            measure_held_out(config, run)
    if not config.is_simulated:
        return None, {}
    with run.phase("evaluate") as figures:
        evaluation, controls = evaluate_run(config, run)
        figures.update(control_steps_per_s=evaluation.steps_per_s, frames_per_s=evaluation.frames_per_s)
    return evaluation, controls


def check_run(config: RunConfig, run: RunFolder) -> None:
    """Check a run before it starts or resumes.

    Raises:
        UserError: a field is out of range, fields do not fit each other or the world, or something named does not
            exist; or the initial policy is of another world or model.
    """
    check_config(config)
    check_model(config.model)
    _num_updates(config)
    check_device(config.demonstrations.world, config.demonstrations.device)
    initial = config.initial_policy(run)
    kept = None if initial is None else load_shape(initial)[2]
    shape = shape_of(config.model, check_recordings(config, kept))
    if initial is not None and run.last_checkpoint() is None:
        check_initial_weights(initial, shape)
    with torch.device("meta"):
        prepare(VLA(shape), config.fine_tuning)
    check_n_action_steps(deployment_of(config, shape.chunk_size).n_action_steps, shape.chunk_size)


def update(config: RunConfig, run: RunFolder) -> dict[str, float]:
    """`learn` in learner.num_processes processes.

    Returns:
        "samples_per_s" and "data_wait_share".
    """
    last = run.last_checkpoint()
    data, _ = _data(config, run)  # fills the cache of decoded frames before several processes need it
    say_changes(run, [data])
    say_left_out(config)
    say_inferred(data)
    with progress_bars() as progress, interrupts_wait() as interrupted:
        bar = progress.add_task("updates", total=_num_updates(config), completed=int(last.name) if last else 0)
        show = partial(progress.update, bar)
        if config.learner.num_processes == 1:
            return learn(config, run, Process(device=best_device(), interrupted=interrupted, report=show))
        folders = {name: _resolved(getattr(config, name)) for name in ("data", "drives", "auxiliary")}
        config = replace(config, **folders, cache=str(Path(config.cache).resolve()) if config.cache else "")
        return run_in_processes(
            partial(learn, config, RunFolder(run.root.resolve())),
            config.learner.num_processes,
            run.root,
            ray_address=config.rollout.ray_address,
            interrupted=interrupted,
            on_report=show,
        )


def learn(config: RunConfig, run: RunFolder, process: Process) -> dict[str, float]:
    """Train from the last checkpoint, the initial policy or from scratch, on the run's dataset or the recorded ones.

    Returns:
        "samples_per_s" and "data_wait_share".
    """
    data, kept = _data(config, run)
    part = (process.rank, process.count)
    torch.manual_seed(config.seed)
    last, initial = run.last_checkpoint(), config.initial_policy(run)
    continues = None if initial is None else load_config(initial)
    model, fresh = create_policy(config.model, data.world_spec, data.stats, continues=continues)
    processor = fresh if kept is None else kept.with_instruction_length(model.config.instruction_length)
    if initial is not None and last is None:
        load_initial_weights(model, initial)
    processor.conversion = data.conversion
    if process.rank == 0:
        for line in processor.warnings(data.instructions):
            say("train", line)
    processor.deployment = deployment_of(config, model.config.chunk_size)
    prepare(model, config.fine_tuning)
    learner = Learner(model.to(process.device), config.learner, repeats=True)
    if last is not None:
        learner.load(last)
    encode = SFTEncoder(processor, data.instructions, model.config, seed=config.seed, part=part)
    loss = partial(sft_loss, config=config.sft)
    first, began_s = learner.num_updates_done, time.perf_counter()
    size, length = config.learner.batch_size, model.config.chunk_size
    figures: dict[str, float] = {}
    num_updates = _num_updates(config)
    history, foreseen = model.config.history, model.config.foreseen
    batches = data.batches(
        size, length, seed=config.seed, start_step=first, part=part, history=history, foreseen=foreseen
    )
    with closing(learner), batches, _log(config, run, process) as log:
        while learner.num_updates_done < num_updates:
            batch = encode(next(batches), learner.num_updates_done).to(process.device)
            with saved_if_not_finite(batch, run.root, process.rank):
                metrics = learner.update(batch, loss)
            done, stop = learner.num_updates_done, process.interrupted()
            process.report(completed=done, description=f"updates, loss {metrics['loss/total']:.3f}")
            wall_s = time.perf_counter() - began_s
            figures = {"samples_per_s": (done - first) * size / wall_s, "data_wait_share": batches.wait_s / wall_s}
            if log is not None and done % LOG_EVERY == 0:
                log.add(metrics | {f"learner/{key}": figure for key, figure in figures.items()}, done)
            if log is not None and (done % config.save_every == 0 or done == num_updates or stop):
                save_checkpoint(run.checkpoint(done), learner, processor, config.fine_tuning)
            if stop:
                raise KeyboardInterrupt
    return figures


def _data(config: RunConfig, run: RunFolder) -> tuple[TrainingData, Processor | None]:
    """The run's data; and the processor of the last checkpoint or of the initial policy, whose normalisation and
    conversion hold for other data too.
    """
    initial = config.initial_policy(run)
    kept = None if initial is None else Processor.load(initial)
    return training_data(config, run, kept), kept


def deployment_of(config: RunConfig, chunk_size: int) -> Deployment:
    """How the run's policy is to be deployed: as it is evaluated.

    A policy cloned from recordings without evaluation may be a robot's, so its deployment names no world.
    """
    steps = config.evaluation.n_action_steps or chunk_size
    if config.data and not config.is_simulated:
        return Deployment(n_action_steps=min(steps, chunk_size))
    return config.demonstrations.deployment(steps)


def _num_updates(config: RunConfig) -> int:
    """Of the run.

    Raises:
        UserError: learner.num_updates is None.
    """
    if config.learner.num_updates is None:
        raise UserError("learner.num-updates is not given; a run on demonstrations needs it: --learner.num-updates N")
    return config.learner.num_updates


def _resolved(folders: Sequence[str]) -> tuple[str, ...]:
    """Absolute paths, for processes with another working directory."""
    return tuple(str(Path(folder).resolve()) for folder in folders)


def _log(config: RunConfig, run: RunFolder, process: Process) -> AbstractContextManager[MetricLog | None]:
    """The run's metrics; None except in rank 0, which alone writes them and checkpoints."""
    return metric_log(run, config.log_to) if process.rank == 0 else nullcontext()


def evaluate_run(config: RunConfig, run: RunFolder) -> tuple[Evaluation, dict[str, Evaluation]]:
    """Evaluate the last checkpoint and write eval_info.json and videos."""
    last = run.last_checkpoint()
    assert last is not None, "update leaves a checkpoint"
    demonstrations = config.demonstrations
    with closing(make_world(demonstrations.world)) as world:
        tasks = demonstrations.tasks or world.tasks
        policy = VLAPolicy.from_pretrained(last / PRETRAINED, version=int(last.name))
        policy.processor.check(world.world_spec)
        make_policy, folder = partial(on_best_device, policy), last / PRETRAINED
        setup = EvaluationSetup(world, demonstrations.make_worlds, make_policy, config.rollout, card=folder)
        evaluation, controls = measure(setup, tasks, config.evaluation, run)
    measured = {"success": evaluation} | controls
    with metric_log(run, config.log_to) as log:
        log.add({f"evaluation/{name}": part.mean_over_tasks for name, part in measured.items()}, int(last.name))
    return evaluation, controls
