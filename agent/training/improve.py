"""The loop that fine-tunes a policy: collect -> learn -> publish -> evaluate -> save, in one screen.

    collect     episodes from initial states that no other iteration has (practice.py); with overlap the next
                iteration's, while learning from this one's (agent/training/collecting.py)
    learn       advantages, where the algorithm has them, and updates (agent/algorithms/method.py)
    publish     the new weights, for the next iteration; an episode's version is the iteration whose initial weights
                acted in it
    evaluate    every few iterations (selection.py); the best policy is kept, and a collapse ends the run
    save        weights, optimiser state, iteration and best success; the first and the last checkpoint are kept

An iteration is determined by its number, its initial weights and the seed: no generator's state is carried over, so
checkpoints need none, and a killed run resumes identically. (With workers, batches of worlds depend on timing, and so
do the last bits of the actions.)

At the end the initial policy and the best one are evaluated on the same episodes, which model selection did not use.
"""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from agent.algorithms.method import Context, Method
from agent.evaluation.changes import write_changes
from agent.evaluation.evaluate import evaluation_specs
from agent.evaluation.measure import Evaluations, EvaluationSetup, measure, rerun
from agent.learning.learner import Learner
from agent.runs.deployment import recorded_deployment, say_differences
from agent.runs.progress import progress_bars
from agent.runs.run_folder import PRETRAINED, RunFolder
from agent.runs.seeds import FIRST_SELECTION_SEED
from agent.training.bookkeeping import Bookkeeping, progress_of
from agent.training.checkpoints import acted_weights, acting_weights
from agent.training.collecting import Collector, OverlappedCollector, SyncCollector
from agent.training.config import ImproveConfig
from agent.training.improve_checks import check_improvement, check_initial_policy
from agent.training.practice import practice_specs, practice_summary
from agent.training.recordings import say_changes
from agent.training.selection import Progress, Selection
from agent.training.trackers import metric_log
from envs.errors import UserError
from envs.make import make_world
from envs.types import EpisodeSpec
from envs.world import World
from rollout.types import RunEpisodes, Trajectory
from rollout.workers.workers import Workers
from vla_model.inputs.processor import Processor
from vla_model.model import VLA
from vla_model.numerics.precision import best_device
from vla_model.policy import VLAPolicy, on_best_device
from vla_model.types import Policy
from vla_model.weights.checkpoint import load_policy
from vla_model.weights.finetune import prepare


def improve(config: ImproveConfig, run: RunFolder, make_worlds: Callable[[int], World] | None = None) -> Evaluations:
    """Run it, and write checkpoints, the best policy, TensorBoard events, videos, eval_info.json, changes.json.

    Args:
        run: its folder, new or interrupted.
        make_worlds: makes that many worlds; None for those that the config names.

    Returns:
        The evaluation of the best policy, and the blind controls by name.

    Raises:
        UserError: see ready.
    """
    with ready(config, run, make_worlds) as work:
        return work()


@contextmanager
def ready(
    config: ImproveConfig, run: RunFolder, make_worlds: Callable[[int], World] | None = None
) -> Generator[Callable[[], Evaluations]]:
    """Check everything before the run starts or resumes, and yield the function that runs it.

    Nothing is written before it is called.

    Raises:
        UserError: there is no initial policy, it was made for another world, something named does not exist, or the
            run could not be completed.
    """
    check_improvement(config)
    make_example = make_worlds or partial(make_world, config.practice.world)
    make_worlds = make_worlds or config.practice.make_worlds
    with closing(make_example(1)) as world:
        processor = check_initial_policy(config, run, world)
        context = Context(
            processor=processor,
            suite=world.suite,
            run=run,
            init=config.init,
            seed=config.seed,
            n_action_steps=config.evaluation.n_action_steps,
            cache=config.cache,
        )
        yield _Improvement(config, run, make_worlds, world, processor, config.algorithm.method(context)).work


@dataclass(frozen=True)
class _Improvement:
    """A checked run."""

    config: ImproveConfig
    run: RunFolder
    make_worlds: Callable[[int], World]
    world: World
    """An example of those that make_worlds makes."""
    processor: Processor
    method: Method

    @property
    def tasks(self) -> Sequence[str]:
        return self.config.practice.tasks or self.world.tasks

    def work(self) -> Evaluations:
        """Iterate, then evaluate the initial and the best policy."""
        run, config = self.run, self.config
        with run.phase("improve"):
            self._iterate()
        with run.phase("evaluate") as figures:
            self._measure(run.checkpoint(0) / PRETRAINED, run.before)
            evaluation, controls = self._measure(run.best / PRETRAINED, run)
            figures.update(control_steps_per_s=evaluation.steps_per_s, frames_per_s=evaluation.frames_per_s)
        if config.evaluation.videos_per_task:
            specs = [result.spec for result in evaluation.results]
            write_changes(run, specs, self._rerun, self.world.world_spec.control_dt_s)
        return evaluation, controls

    def _iterate(self) -> None:
        """From the last checkpoint or the initial policy to the last iteration or a collapse."""
        config, run, method = self.config, self.run, self.method
        learner, acting = self._learner_and_actor()
        say_changes(run, method.data)
        with ExitStack() as stack:
            stack.enter_context(closing(learner))
            log = stack.enter_context(metric_log(run, config.log_to))
            actors = self._workers(stack, config.practice.num_worlds, method.actor(acting))
            success: dict[str, float] = {}
            collecting = stack.enter_context(closing(self._collecting(actors, success)))
            policy = VLAPolicy(copy.deepcopy(acting), self.processor)
            evaluators = self._workers(stack, config.evaluation.num_worlds, partial(on_best_device, policy))
            specs = evaluation_specs(
                self.world.suite, self.tasks, config.selection_episodes, config.practice.variation, FIRST_SELECTION_SEED
            )
            selection = Selection(
                evaluators, self.world, specs, config.evaluation.n_action_steps, run.best / PRETRAINED
            )
            finish = Bookkeeping(config, run, learner, self.processor, selection, collecting, log).finish
            bars = stack.enter_context(progress_bars())
            done, progress = progress_of(run) or (0, finish({}, 0, Progress()))
            bar = bars.add_task("iterations", total=config.iterations, completed=done)
            while done < config.iterations and progress.success >= config.collapse_share * progress.best_success:
                began_s = time.perf_counter()
                success.update(progress.success_of_tasks)
                episodes = collecting.episodes(done, acting_weights(learner))
                collected_s = time.perf_counter()
                num_updates = config.algorithm.scheduled_updates(config.iterations, done)
                learner.schedule(num_updates=num_updates, progress=done / config.iterations)
                metrics = method.learn(learner, episodes, done) | practice_summary(episodes, done)
                metrics |= {
                    "time/collect_s": collecting.seconds,
                    "time/wait_s": collected_s - began_s,
                    "time/update_s": time.perf_counter() - collected_s,
                }
                done += 1
                progress = finish(metrics, done, progress)
                rates = f"practice {metrics['practice/success']:.0%}, best {progress.best_success:.0%}"
                bars.update(bar, completed=done, description=f"iterations, {rates}")

    def _learner_and_actor(self) -> tuple[Learner[VLA], VLA]:
        """The learner of the last checkpoint, or of the initial policy; and a model that acts."""
        config, algorithm = self.config, self.config.algorithm
        model, _ = load_policy(config.initial_policy(self.run), value_head=algorithm.needs_values)
        steps = config.evaluation.n_action_steps or model.config.chunk_size
        made_for = self.processor.deployment or recorded_deployment(config.init, model.config.chunk_size)
        self.processor.deployment = config.practice.deployment(steps)
        say_differences(config.init, made_for, self.processor.deployment)
        algorithm.prepare(model)
        acting = copy.deepcopy(model)
        torch.manual_seed(config.seed)
        prepare(model, config.fine_tuning)
        settings = config.learner if algorithm.acts_by_average else replace(config.learner, ema_decay=0.0)
        learner = Learner(model.to(best_device()), settings, repeats=algorithm.repeats_loss)
        if (last := self.run.last_checkpoint()) is not None:
            learner.load(last)
        return learner, acting

    def _workers(self, stack: ExitStack, num_worlds: int, make_policy: Callable[[World], Policy]) -> Workers:
        """A pool of worker processes with num_worlds each; its report is printed when the stack is closed."""
        workers = Workers(partial(self.make_worlds, num_worlds), make_policy, self.config.rollout)
        stack.callback(lambda: sys.stderr.writelines(f"{line}\n" for line in workers.report.lines()))
        return stack.enter_context(workers)

    def _collecting(self, actors: Workers, success: dict[str, float]) -> Collector:
        config, world = self.config, self.world

        def specs(iteration: int, round_: int, repeats: int) -> list[EpisodeSpec]:
            return world.in_order(
                practice_specs(config.practice, world.suite, self.tasks, iteration, round_, repeats, success)
            )

        def collect(run: RunEpisodes, iteration: int) -> list[Trajectory]:
            found = self.method.collect(run, partial(specs, iteration), iteration)
            if not found:
                raise UserError(
                    f"no episode of iteration {iteration + 1} came back; {actors.report.lines()[-1]}; try again "
                    "with --resume"
                )
            return sorted(found, key=lambda t: t.spec)

        if not config.overlap:
            return SyncCollector(actors, collect)
        last = self.run.last_checkpoint()
        return OverlappedCollector(
            actors, collect, iterations=config.iterations, acted=acted_weights(last) if last else None
        )

    def _setup(self, folder: Path) -> EvaluationSetup:
        policy = VLAPolicy.from_pretrained(folder)
        make_policy = partial(on_best_device, policy)
        return EvaluationSetup(self.world, self.make_worlds, make_policy, self.config.rollout, card=folder)

    def _measure(self, folder: Path, results: RunFolder) -> Evaluations:
        return measure(self._setup(folder), self.tasks, self.config.evaluation, results)

    def _rerun(self, folder: Path, specs: list[EpisodeSpec]) -> list[Trajectory]:
        return rerun(self._setup(folder), self.config.evaluation, specs)
