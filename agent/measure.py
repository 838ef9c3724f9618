"""Measuring a policy: evaluation and blind controls over one list of episodes, with what they leave on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agent.controls import BlackFrames, ShuffledInstructions
from agent.eval_info import eval_info, write_eval_info
from agent.evaluate import Evaluation, evaluate, evaluation_specs
from agent.progress import progress_bars
from agent.run_folder import RunFolder
from envs.types import EpisodeSpec
from envs.world import World
from vla_model.types import Policy


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How the result is measured."""

    episodes_per_task: int = 20
    """Per variation too."""
    variations: tuple[str, ...] = ("train",)
    """Each is evaluated on the same seeds."""
    controls: bool = True
    """Also run the first variation blind: shuffled instructions (where there are two tasks) and black frames."""
    films_per_task: int = 1
    """Per variation too."""
    execute_steps: int | None = 2
    """Actions executed of each chunk; None for the whole chunk."""
    num_worlds: int = 8
    """Worlds side by side."""


def measure(
    policy: Policy, world: World, tasks: Sequence[str], config: EvaluationConfig, folder: RunFolder
) -> tuple[Evaluation, dict[str, Evaluation]]:
    """Evaluate, run the controls, write eval_info.json and films; returns the evaluation and the controls by name.

    Raises:
        ValueError: as `evaluate` and `evaluation_specs` do.
    """
    specs = [
        spec
        for variation in config.variations
        for spec in evaluation_specs(world.suite, tasks, config.episodes_per_task, variation)
    ]
    evaluation = _run("evaluation", policy, world, specs, config, folder, config.films_per_task)
    blind: dict[str, Policy] = {}
    blind_specs = [spec for spec in specs if spec.variation == config.variations[0]]
    if config.controls and len(tasks) > 1:
        said = {spec: evaluation.instructions[spec] for spec in blind_specs}
        blind["shuffled instructions"] = ShuffledInstructions(policy, said)
    if config.controls:
        blind["black frames"] = BlackFrames(policy)
    controls = {name: _run(name, control, world, blind_specs, config, folder, 0) for name, control in blind.items()}
    write_eval_info(folder.eval_info, eval_info(evaluation, controls, folder.films.name))
    return evaluation, controls


def _run(
    name: str,
    policy: Policy,
    world: World,
    specs: Sequence[EpisodeSpec],
    config: EvaluationConfig,
    folder: RunFolder,
    films_per_task: int,
) -> Evaluation:
    with progress_bars() as progress:
        bar = progress.add_task(name, total=len(specs))
        return evaluate(
            policy,
            world,
            specs,
            execute_steps=config.execute_steps,
            films_per_task=films_per_task,
            films_dir=folder.films,
            on_result=lambda _: progress.advance(bar),
        )
