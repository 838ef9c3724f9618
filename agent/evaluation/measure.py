"""Evaluating a policy with blind controls on one list of episodes, and writing the results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from agent.evaluation.config import EvaluationConfig
from agent.evaluation.controls import BlackFrames, ShuffledInstructions
from agent.evaluation.eval_info import eval_info, write_eval_info
from agent.evaluation.evaluate import Evaluation, evaluate
from agent.evaluation.model_card import write_results
from agent.runs.progress import EpisodesBar, progress_bars
from agent.runs.run_folder import RunFolder
from envs.types import EpisodeSpec
from envs.world import World
from rollout.types import Trajectory
from rollout.workers.workers import WorkerReport, Workers, WorkersConfig
from vla_model.types import Policy


@dataclass(frozen=True)
class EvaluationSetup:
    """A policy to evaluate, and where its episodes run."""

    example: World
    """An example of the worlds, for names and specs; may be on the CPU."""
    make_world: Callable[[int], World]
    """Makes a World of that many, e.g. `partial(make_world, "tabletop")`; called in the process that runs it."""
    make_policy: Callable[[World], Policy]
    """Called for every world, in the process that runs it."""
    workers: WorkersConfig
    card: Path | None = None
    """Folder of the policy whose model card gets the results; None for none."""

    def pool(self, num_worlds: int) -> Workers:
        """The processes of the episodes, with that many worlds each; nothing starts before the first use."""
        return Workers(partial(self.make_world, num_worlds), self.make_policy, self.workers)


Evaluations = tuple[Evaluation, dict[str, Evaluation]]
"""Of a policy, and of its blind controls by name."""


def measure(setup: EvaluationSetup, tasks: Sequence[str], config: EvaluationConfig, folder: RunFolder) -> Evaluations:
    """Evaluate, run the controls in the same processes, write eval_info.json, videos and the model card; returns the
    evaluation and the controls by name. eval_info.json is written after the evaluation and after each control, so that
    an interrupt loses no finished one.

    Raises:
        UserError: as `evaluate` and `evaluation_specs` do.
    """
    specs = config.specs(setup.example.suite, tasks)
    with setup.pool(config.num_worlds) as workers:
        run = partial(run_specs, workers, setup.example, config)
        evaluation = run("evaluation", specs, videos_dir=folder.videos)
        info = eval_info(evaluation, {})
        write_eval_info(folder.eval_info, info)
        # A control averages over its tasks as the evaluation does, so a seed that is lost in one task is left out of
        # all.
        lost = {r.spec.seed for r in evaluation.results if r.lost}
        instructions = {
            spec: text
            for spec, text in evaluation.instructions.items()
            if spec.variation == config.variations[0] and spec.seed not in lost
        }
        blind: dict[str, Callable[[Policy], Policy]] = {}
        if config.controls and instructions and len(tasks) > 1:
            blind["shuffled instructions"] = partial(ShuffledInstructions, instructions=instructions)
        if config.controls and instructions:
            blind["black frames"] = BlackFrames
        controls: dict[str, Evaluation] = {}
        for name, control in blind.items():
            controls[name] = run(name, list(instructions), control=control)
            info = eval_info(evaluation, controls)
            write_eval_info(folder.eval_info, info)
    if setup.card is not None:
        write_results(setup.card, info)
    return evaluation, controls


def run_specs(
    workers: Workers,
    example: World,
    config: EvaluationConfig,
    name: str,
    specs: Sequence[EpisodeSpec],
    *,
    control: Callable[[Policy], Policy] | None = None,
    videos_dir: Path | None = None,
    on_trajectory: Callable[[Trajectory], None] | None = None,
) -> Evaluation:
    """Evaluate on some episodes, with a progress bar; begins a new report of the workers and prints it.

    Args:
        workers: of `EvaluationSetup.pool`.
        example: of their worlds.
        config: its n_action_steps and videos_per_task are used.
        name: of the bar.
        control: wraps the policy in every process.
        videos_dir: folder of the videos; None for none.
        on_trajectory: called after each episode, in this process.
    """
    workers.report = WorkerReport()
    with progress_bars() as progress:
        bar = EpisodesBar(progress, name, len(specs))

        def after(trajectory: Trajectory) -> None:
            bar.show(trajectory)
            if on_trajectory is not None:
                on_trajectory(trajectory)

        evaluation = evaluate(
            partial(workers.collect, wrap=control),
            example,
            specs,
            n_action_steps=config.n_action_steps,
            videos_per_task=0 if videos_dir is None else config.videos_per_task,
            videos_dir=videos_dir,
            on_trajectory=after,
            broken=workers.report.broken,
        )
        for line in workers.report.lines():
            progress.console.print(line, highlight=False, markup=False, soft_wrap=True)
    return evaluation


def rerun(setup: EvaluationSetup, config: EvaluationConfig, specs: Sequence[EpisodeSpec]) -> list[Trajectory]:
    """Run some specs again, all in one process, with every step recorded."""
    one = replace(setup, workers=replace(setup.workers, workers=min(1, setup.workers.workers)))
    with one.pool(min(len(specs), config.num_worlds)) as workers:
        return list(workers.collect(specs, n_action_steps=config.n_action_steps, all_frames=True))
