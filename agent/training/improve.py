"""The loop that makes a policy better: collect -> credit -> update -> publish -> evaluate -> save, in one screen.

    collect            episodes from first states of this iteration's own (practice.py), or already those of the
                       next one, while this one's are learned from (agent/training/collecting.py)
    credit, update     as the algorithm has it: policy_gradient.py for ppo and grpo, algorithms/cloning.py for rft and
                       dagger
    publish            the new weights, for the next iteration; every episode is of one version, the iteration that
                       began with these weights
    evaluate           every few iterations (selection.py); the best policy is kept, and a collapse ends the run
    save               weights, optimiser, iteration and what was best; of checkpoints the first and the last stay

An iteration is decided by its number, the weights it begins with and the seed: nothing random is carried over, so a
checkpoint holds no generators, and a run that was killed goes on to the numbers it would have had. (With workers, which
worlds decide together depends on timing, and with it the last bits of what a policy says.)

At the end the first policy and the best one are measured on the same episodes, which no choice has seen.
"""

from __future__ import annotations

import copy
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import tyro
from annotated_types import Interval
from torch.utils.tensorboard import SummaryWriter

from agent.algorithms.cloning import Cloning
from agent.algorithms.dagger import DaggerConfig, check_dagger
from agent.algorithms.grpo import GRPOConfig
from agent.algorithms.method import Method
from agent.algorithms.policy_gradient import PolicyGradient
from agent.algorithms.ppo import PPOConfig
from agent.algorithms.renewal import check_renewal, scheduled_updates
from agent.algorithms.rft import RFTConfig
from agent.evaluation.changes import film_changes
from agent.evaluation.evaluate import Evaluation
from agent.evaluation.measure import EvaluationConfig, Measured, measure, on_best_device
from agent.learning.learner import Learner, LearnerConfig
from agent.runs.checks import HOW, Seed, Share, check_config, check_episodes
from agent.runs.deployment import recorded_deployment, say_differences
from agent.runs.progress import progress_bars
from agent.runs.run_folder import PRETRAINED, RunFolder, policy_folder
from agent.training.checkpoints import acted_weights, acting_weights, save_checkpoint
from agent.training.collecting import Ahead, Collecting, InTurn
from agent.training.demonstrations import check_expert
from agent.training.practice import PracticeConfig, check_practice, practice_specs, practice_summary
from agent.training.recordings import say_changes
from agent.training.selection import Progress, Selection, selection_specs
from envs.errors import UserError
from envs.make import check_device, make_world
from envs.types import EpisodeSpec
from envs.world import World
from rollout.types import RunEpisodes, Trajectory
from rollout.workers.report import WorkerReport
from rollout.workers.workers import Workers, WorkersConfig
from vla_model.files.deployment import Deployment, check_execute_steps
from vla_model.files.folders import check_place, read_json
from vla_model.heads.moe import keep_balance
from vla_model.inputs.processor import Processor
from vla_model.model import VLA
from vla_model.numerics.precision import best_device
from vla_model.policy import VLAPolicy
from vla_model.types import Policy
from vla_model.weights.checkpoint import load_policy, load_shape
from vla_model.weights.finetune import FineTuning, prepare

_PROGRESS_FILE = "progress.json"


@dataclass(frozen=True, kw_only=True)
class ImproveConfig:
    """Everything that decides a run that begins with a policy."""

    algorithm: PPOConfig | GRPOConfig | RFTConfig | DaggerConfig
    init: Annotated[str, tyro.conf.arg(metavar="POLICY")] = ""
    """The policy to begin with: a run, a checkpoint, or a policy's folder."""
    fine_tuning: FineTuning = field(default_factory=FineTuning)
    seed: Seed = 0
    """Of drawn actions, batches, augmentation and the first weights of adapters."""
    practice: PracticeConfig = field(default_factory=PracticeConfig)
    iterations: Annotated[int, Interval(ge=1, le=100_000)] = 40
    overlap: bool = False
    """Collect an iteration's episodes while the one before is learned from: faster where there are cores for both, but
    every episode is of weights one iteration old."""
    rollout: Annotated[WorkersConfig, tyro.conf.arg(name="")] = field(default_factory=WorkersConfig)
    """The processes that collect and evaluate; on the command line without a prefix: --workers, --ray-address."""
    cache: Annotated[str, tyro.conf.arg(metavar="DIR")] = field(default="", metadata=HOW)
    """A folder for what is decoded of datasets; beside each of them if not given."""
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    """Of the first and the best policy, at the end. Its execute_steps hold in practice too."""
    evaluate_every: Annotated[int, Interval(ge=1, le=100_000)] = 5
    """Iterations between two evaluations that choose the best policy."""
    selection_episodes: Annotated[int, Interval(ge=1, le=100_000)] = 10
    """Per task, in such an evaluation."""
    collapse_share: Share = 0.5
    """The run ends where the success of such an evaluation falls below this share of the best."""

    def check(self) -> None:
        """
        Raises:
            UserError: what the learner is told contradicts the algorithm, or caches cannot be kept where they are to.
        """
        check_place("cache", self.cache)
        learner = self.learner
        if learner.num_processes != 1:
            raise UserError(
                f"learner.num-processes is {learner.num_processes}, but what a policy practised is learned by one "
                "process"
            )
        if isinstance(self.algorithm, RFTConfig | DaggerConfig):
            self._check_schedules(self.algorithm)
            return
        if learner.ema_decay:
            raise UserError(
                f"learner.ema-decay is {learner.ema_decay}, but the ratios of ppo and grpo are of the weights that "
                "learn, so these must act and not their average; leave it out"
            )
        if learner.num_updates is not None:
            raise UserError(
                f"learner.num-updates is {learner.num_updates}, but ppo and grpo make as many as there are episodes to "
                "learn from; leave it out, and the learning rate falls by iterations"
            )
        if isinstance(self.algorithm, PPOConfig) and self.algorithm.warmup_iterations >= self.iterations:
            raise UserError(
                f"the value head alone learns for algorithm.warmup-iterations, {self.algorithm.warmup_iterations}, and "
                f"the run has only {self.iterations} iterations, so the policy would learn nothing; lower the first, "
                "or practise for more"
            )

    def _check_schedules(self, algorithm: RFTConfig | DaggerConfig) -> None:
        schedules = [
            scheduled_updates(algorithm.renewal, algorithm.updates, self.iterations, iteration)
            for iteration in range(self.iterations)
        ]
        if self.learner.num_updates not in (None, schedules[-1]):
            raise UserError(
                f"learner.num-updates is {self.learner.num_updates}, but {self.iterations} iterations come to "
                f"{schedules[-1]}; leave it out"
            )
        self.learner.check_warmup(min(schedules))


def check_init(config: ImproveConfig) -> Path:
    """The folder of the policy to begin with.

    Raises:
        UserError: none is named, or it holds none.
    """
    if not config.init:
        raise UserError("there is no policy to begin with; name a run or a policy's folder with --init")
    return policy_folder(config.init)


def improve(
    config: ImproveConfig, run: RunFolder, make_worlds: Callable[[int], World] | None = None
) -> tuple[Evaluation, dict[str, Evaluation]]:
    """Fill the run's folder: checkpoints, the best policy, TensorBoard events, films, eval_info.json, changes.json.

    Args:
        config: what to do.
        run: its folder, new or interrupted.
        make_worlds: makes that many worlds; those that the config names where None.

    Returns:
        The evaluation of the best policy, and the blind controls by name.

    Raises:
        UserError: there is no policy to begin with, it was made for another world, something named does not exist, or
            the run could not come to its end.
    """
    check_improvement(config)
    make_example = make_worlds or partial(make_world, config.practice.world)
    make_worlds = make_worlds or partial(make_world, config.practice.world, device=config.practice.device)
    with closing(make_example(1)) as world:
        check_beginning(config, run, world)
        with run.phase("improve"):
            _iterate(config, run, make_worlds, world)
        with run.phase("evaluate") as figures:
            tasks = _tasks(config, world)
            judged = partial(_measure, config, world, make_worlds, tasks)
            judged(run.checkpoint(0) / PRETRAINED, run.before)
            evaluation, controls = judged(run.best / PRETRAINED, run)
            figures.update(control_steps_per_s=evaluation.steps_per_s, frames_per_s=evaluation.frames_per_s)
        if config.evaluation.films_per_task:
            specs = [result.spec for result in evaluation.results]
            film_changes(run, specs, partial(_rerun, config, make_worlds), world.world_spec.control_dt_s)
    return evaluation, controls


def check_whole(config: ImproveConfig, run: RunFolder) -> None:
    """All that can be known of a run before it begins or goes on.

    Raises:
        UserError: see check_improvement and check_beginning.
    """
    check_improvement(config)
    with closing(make_world(config.practice.world)) as world:
        check_beginning(config, run, world)


def check_improvement(config: ImproveConfig) -> None:
    """Refuse now what would fail after hours.

    Raises:
        UserError: the run could not come to its end.
    """
    check_config(config)
    check_device(config.practice.world, config.practice.device)
    algorithm = config.algorithm
    grouped = isinstance(algorithm, GRPOConfig)
    rounds, repeats = (algorithm.max_rounds, algorithm.group_size) if grouped else (1, 1)
    check_practice(config.practice, config.iterations, rounds=rounds, repeats=repeats)
    if config.evaluation.episodes_per_task < 1:
        raise UserError("a policy that practised is evaluated; evaluation.episodes_per_task must be at least 1")
    if config.overlap and config.practice.focus:
        raise UserError("with overlap an iteration's episodes are chosen before the evaluation that focus looks at")
    if isinstance(algorithm, DaggerConfig) and config.rollout.inference is not None:
        raise UserError("dagger's expert must act in the worker's own world: leave out rollout.inference")


def check_beginning(config: ImproveConfig, run: RunFolder, world: World) -> None:
    """Whether the run can begin in that world with the policy that it names, or go on with its last checkpoint.

    Raises:
        UserError: there is no such policy, it was made for another world, what the config asks of it does not fit it,
            or the world lacks a task or variation.
    """
    check_episodes(world, config.practice.tasks, (config.practice.variation,))
    check_episodes(world, config.practice.tasks, config.evaluation.variations)
    last = run.last_checkpoint()
    folder = check_init(config) if last is None else last / PRETRAINED
    _, shape, processor = load_shape(folder)
    processor.check(world.world_spec)
    check_execute_steps(config.evaluation.execute_steps or shape.chunk_length, shape.chunk_length)
    if isinstance(config.algorithm, DaggerConfig):
        check_dagger(config.algorithm, shape.chunk_length)
        check_expert(world, config.practice.tasks, config.practice.variation)
    if isinstance(config.algorithm, RFTConfig | DaggerConfig):
        check_renewal(config.algorithm.renewal, config.iterations, config.fine_tuning, shape)
    _method(config, run, processor, world)


def _iterate(config: ImproveConfig, run: RunFolder, make_worlds: Callable[[int], World], world: World) -> None:
    """From the last checkpoint, or from the beginning, to the last iteration or to a collapse."""
    learner, acting, processor = _begin(config, run)
    method = _method(config, run, processor, world)
    say_changes(run, method.data)
    tasks, execute_steps = _tasks(config, world), config.evaluation.execute_steps
    with ExitStack() as stack:
        stack.enter_context(closing(learner))
        log = stack.enter_context(SummaryWriter(run.tensorboard))

        def crew(num_worlds: int, make_policy: Callable[[World], Policy]) -> Workers:
            workers = Workers(partial(make_worlds, num_worlds), make_policy, config.rollout)
            stack.callback(_tell, workers.report)
            return stack.enter_context(workers)

        actors = crew(config.practice.num_worlds, method.actor(acting))
        success: dict[str, float] = {}
        asked = partial(practice_specs, config.practice, world.suite, tasks, success=success)
        collecting = stack.enter_context(closing(_collecting(config, run, actors, method, asked)))
        judges = crew(config.evaluation.num_worlds, _judge(copy.deepcopy(acting), processor))
        specs = selection_specs(world.suite, tasks, config.selection_episodes, config.practice.variation)
        selection = Selection(judges, world, specs, execute_steps, run.best / PRETRAINED)
        finish = _Keeper(config, run, learner, processor, selection, collecting, log).finish
        bars = stack.enter_context(progress_bars())
        done, progress = _progress_of(run) or (0, finish({}, 0, Progress()))
        bar = bars.add_task("iterations", total=config.iterations, completed=done)
        while done < config.iterations and progress.success >= config.collapse_share * progress.best_success:
            began_s = time.perf_counter()
            success.update(progress.success_of_tasks)
            episodes = collecting.episodes(done, acting_weights(learner))
            collected_s = time.perf_counter()
            _schedule(config, learner, done)
            metrics = method.learn(learner, episodes, done) | practice_summary(episodes, done)
            metrics |= {
                "time/collect_s": collecting.seconds,
                "time/wait_s": collected_s - began_s,
                "time/update_s": time.perf_counter() - collected_s,
            }
            done += 1
            progress = finish(metrics, done, progress)
            won = f"practice {metrics['practice/success']:.0%}, best {progress.best_success:.0%}"
            bars.update(bar, completed=done, description=f"iterations, {won}")


@dataclass(frozen=True)
class _Keeper:
    """What becomes of an iteration that is done."""

    config: ImproveConfig
    run: RunFolder
    learner: Learner[VLA]
    processor: Processor
    selection: Selection
    collecting: Collecting
    log: SummaryWriter

    def finish(self, metrics: dict[str, float], done: int, progress: Progress) -> Progress:
        """Evaluate if it is time, log, and save the checkpoint."""
        config = self.config
        if done % config.evaluate_every == 0 or done == config.iterations:
            progress, rates = self.selection.judge(self.learner, self.processor, done, progress)
            metrics = metrics | rates
        for name, value in metrics.items():
            self.log.add_scalar(name, value, done)
        self.log.flush()
        notes = {_PROGRESS_FILE: asdict(progress)}
        folder, acted = self.run.checkpoint(done), self.collecting.acted
        save_checkpoint(folder, self.learner, self.processor, config.fine_tuning, notes, acted)
        for old in self.run.checkpoints.glob("*"):
            if old.name.isdecimal() and 0 < int(old.name) < done:
                shutil.rmtree(old)
        return progress


def _begin(config: ImproveConfig, run: RunFolder) -> tuple[Learner[VLA], VLA, Processor]:
    """The learner as the last checkpoint has it, or with the policy that the config names; and a model for acting."""
    last = run.last_checkpoint()
    folder = check_init(config) if last is None else last / PRETRAINED
    model, processor = load_policy(folder, value_head=isinstance(config.algorithm, PPOConfig))
    made_for = processor.deployment or recorded_deployment(config.init, model.config.chunk_length)
    processor.deployment = _deployment(config, made_for, model.config.chunk_length)
    clones = isinstance(config.algorithm, RFTConfig | DaggerConfig)
    if not clones:
        model.config.min_log_scale = config.algorithm.surrogate.min_log_scale
        keep_balance(model)  # who moves must be the policy that the ratios are of
    acting = copy.deepcopy(model)
    torch.manual_seed(config.seed)
    prepare(model, config.fine_tuning)
    settings = config.learner if clones else replace(config.learner, ema_decay=0.0)
    learner = Learner(model.to(best_device()), settings, repeats=clones)
    if last is not None:
        learner.load(last)
    return learner, acting, processor


def _deployment(config: ImproveConfig, made_for: Deployment | None, chunk_length: int) -> Deployment:
    """How the run's policies are meant to be used: as they practise. What differs for the first one is said."""
    steps = config.evaluation.execute_steps or chunk_length
    deployment = Deployment(execute_steps=steps, world=config.practice.world, tasks=config.practice.tasks)
    say_differences(config.init, made_for, deployment)
    return deployment


def _schedule(config: ImproveConfig, learner: Learner[VLA], iteration: int) -> None:
    """Let the learning rate fall to the end of the run: by updates where they can be counted, else by iterations."""
    algorithm = config.algorithm
    if isinstance(algorithm, RFTConfig | DaggerConfig):
        planned = scheduled_updates(algorithm.renewal, algorithm.updates, config.iterations, iteration)
        learner.schedule(num_updates=planned)
    else:
        learner.schedule(progress=iteration / config.iterations)


def _method(config: ImproveConfig, run: RunFolder, processor: Processor, world: World) -> Method:
    algorithm, execute_steps = config.algorithm, config.evaluation.execute_steps
    if isinstance(algorithm, PPOConfig | GRPOConfig):
        return PolicyGradient(
            algorithm,
            processor,
            seed=config.seed,
            execute_steps=execute_steps,
            run=run,
        )
    return Cloning(
        algorithm,
        processor,
        suite=world.suite,
        seed=config.seed,
        execute_steps=execute_steps,
        run=run,
        init=config.init,
        cache=config.cache,
    )


def _collecting(
    config: ImproveConfig, run: RunFolder, actors: Workers, method: Method, asked: Callable[..., list[EpisodeSpec]]
) -> Collecting:
    def collect(episodes: RunEpisodes, iteration: int) -> list[Trajectory]:
        found = method.collect(episodes, partial(asked, iteration), iteration)
        if not found:
            raise UserError(f"no episode of iteration {iteration + 1} came back; {actors.report.lines()[-1]}")
        return sorted(found, key=lambda t: t.spec)

    if not config.overlap:
        return InTurn(actors, collect)
    last = run.last_checkpoint()
    return Ahead(actors, collect, iterations=config.iterations, acted=acted_weights(last) if last else None)


def _tell(report: WorkerReport) -> None:
    """What became of workers."""
    for line in report.lines():
        print(line, file=sys.stderr)


def _judge(model: VLA, processor: Processor) -> Callable[[World], Policy]:
    policy = VLAPolicy(model, processor)
    return partial(on_best_device, policy)


def _tasks(config: ImproveConfig, world: World) -> Sequence[str]:
    return config.practice.tasks or world.tasks


def _progress_of(run: RunFolder) -> tuple[int, Progress] | None:
    """Iterations done and progress, as the last checkpoint has them."""
    last = run.last_checkpoint()
    if last is None:
        return None
    remedy = f"delete {last} if there is an earlier checkpoint: the run goes on from the last one"
    return int(last.name), Progress(**read_json(last / _PROGRESS_FILE, ("success", "best_success"), remedy))


def _measure(
    config: ImproveConfig,
    world: World,
    make_worlds: Callable[[int], World],
    tasks: Sequence[str],
    folder: Path,
    results: RunFolder,
) -> tuple[Evaluation, dict[str, Evaluation]]:
    policy = VLAPolicy.from_pretrained(folder)
    measured = Measured(world, make_worlds, partial(on_best_device, policy), config.rollout)
    return measure(measured, tasks, config.evaluation, results)


def _rerun(
    config: ImproveConfig, make_worlds: Callable[[int], World], folder: Path, specs: list[EpisodeSpec]
) -> list[Trajectory]:
    """Episodes of a folder's policy, all in one process, with every step recorded."""
    policy = VLAPolicy.from_pretrained(folder)
    rollout = replace(config.rollout, workers=min(1, config.rollout.workers))
    num_worlds = min(len(specs), config.evaluation.num_worlds)
    with Workers(partial(make_worlds, num_worlds), partial(on_best_device, policy), rollout) as workers:
        return list(workers.collect(specs, execute_steps=config.evaluation.execute_steps, all_frames=True))
