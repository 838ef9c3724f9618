"""Measuring a policy: evaluation and blind controls over one list of episodes, with what they leave on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated

from annotated_types import Interval, MinLen

from agent.evaluation.controls import BlackFrames, ShuffledInstructions
from agent.evaluation.eval_info import eval_info, write_eval_info
from agent.evaluation.evaluate import Evaluation, evaluate, evaluation_specs
from agent.runs.checks import NumEpisodes, NumWorlds
from agent.runs.progress import EpisodesBar, progress_bars
from agent.runs.run_folder import RunFolder
from envs.types import EpisodeSpec
from envs.world import World
from rollout.types import Trajectory
from rollout.workers.workers import Workers, WorkersConfig
from vla_model.policy import VLAPolicy
from vla_model.types import Policy


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How the result is measured."""

    episodes_per_task: NumEpisodes = 20
    """Per variation too; 0, in recipes that clone, evaluates nothing."""
    variations: Annotated[tuple[str, ...], MinLen(1)] = ("train",)
    """Each is evaluated on the same seeds."""
    controls: bool = True
    """Also run the first variation blind: shuffled instructions (where there are two tasks) and black frames."""
    videos_per_task: NumEpisodes = 1
    """Per variation too."""
    n_action_steps: Annotated[int, Interval(ge=1, le=1_000)] | None = 2
    """Actions executed of each chunk; None for the whole chunk."""
    num_worlds: NumWorlds = 8
    """Worlds side by side in each process."""

    def specs(self, suite: str, tasks: Sequence[str]) -> list[EpisodeSpec]:
        """The episodes, variation by variation.

        Raises:
            UserError: as `evaluation_specs` does.
        """
        return [
            spec
            for variation in self.variations
            for spec in evaluation_specs(suite, tasks, self.episodes_per_task, variation)
        ]


@dataclass(frozen=True)
class Measured:
    """Whom to measure, and where its episodes run."""

    example: World
    """One like those in which it acts, to ask for names; it may be on the CPU wherever they are."""
    make_world: Callable[[int], World]
    """A world of that many, e.g. `partial(make_world, "tabletop")`; called in the process that runs it."""
    make_policy: Callable[[World], Policy]
    """Called for every world, in the process that runs it."""
    workers: WorkersConfig


Evaluations = tuple[Evaluation, dict[str, Evaluation]]
"""Of a policy, and of its blind controls by name."""


def measure(measured: Measured, tasks: Sequence[str], config: EvaluationConfig, folder: RunFolder) -> Evaluations:
    """Evaluate, run the controls, write eval_info.json and videos; returns the evaluation and the controls by name.

    Raises:
        UserError: as `evaluate` and `evaluation_specs` do.
    """
    specs = config.specs(measured.example.suite, tasks)
    run = partial(run_specs, measured, config)
    evaluation = run("evaluation", specs, videos_dir=folder.videos)
    write_eval_info(folder.eval_info, eval_info(evaluation, {}, folder.videos.name))  # kept, should a control fail
    # A control averages over its tasks as the evaluation does, so a seed that was lost in one is left out in all.
    lost = {r.spec.seed for r in evaluation.results if r.lost}
    said = {
        spec: text
        for spec, text in evaluation.instructions.items()
        if spec.variation == config.variations[0] and spec.seed not in lost
    }
    blind: dict[str, Callable[[Policy], Policy]] = {}
    if config.controls and said and len(tasks) > 1:
        blind["shuffled instructions"] = partial(ShuffledInstructions, instructions=said)
    if config.controls and said:
        blind["black frames"] = BlackFrames
    controls = {name: run(name, list(said), control=control) for name, control in blind.items()}
    write_eval_info(folder.eval_info, eval_info(evaluation, controls, folder.videos.name))
    return evaluation, controls


def run_specs(
    measured: Measured,
    config: EvaluationConfig,
    name: str,
    specs: Sequence[EpisodeSpec],
    *,
    control: Callable[[Policy], Policy] | None = None,
    videos_dir: Path | None = None,
    on_trajectory: Callable[[Trajectory], None] | None = None,
) -> Evaluation:
    """Evaluate on some episodes, with a progress bar; what became of workers is printed.

    Args:
        measured: whom, and where.
        config: whose n_action_steps, num_worlds and videos_per_task count.
        name: of the bar.
        specs: the episodes.
        control: what wraps the policy in every process.
        videos_dir: where videos go; None makes none.
        on_trajectory: called after each episode, in this process.
    """
    make_worlds = partial(measured.make_world, config.num_worlds)
    with (
        Workers(make_worlds, measured.make_policy, measured.workers, wrap=control) as workers,
        progress_bars() as progress,
    ):
        bar = EpisodesBar(progress, name, len(specs))

        def after(trajectory: Trajectory) -> None:
            bar.show(trajectory)
            if on_trajectory is not None:
                on_trajectory(trajectory)

        evaluation = evaluate(
            workers.collect,
            measured.example,
            specs,
            n_action_steps=config.n_action_steps,
            videos_per_task=0 if videos_dir is None else config.videos_per_task,
            videos_dir=videos_dir,
            on_trajectory=after,
            broken=workers.report.broken,
        )
        for line in workers.report.lines():
            progress.console.print(line, highlight=False, soft_wrap=True)
    return evaluation


def rerun(measured: Measured, config: EvaluationConfig, specs: Sequence[EpisodeSpec]) -> list[Trajectory]:
    """Episodes of some specs once more, all in one process, with every step recorded."""
    one = replace(measured.workers, workers=min(1, measured.workers.workers))
    make_worlds = partial(measured.make_world, min(len(specs), config.num_worlds))
    with Workers(make_worlds, measured.make_policy, one) as workers:
        return list(workers.collect(specs, n_action_steps=config.n_action_steps, all_frames=True))


def on_best_device(policy: VLAPolicy, _: World) -> VLAPolicy:
    """For `Measured.make_policy`: the policy where it acts, which only the process that runs it knows."""
    return policy.to("auto")
