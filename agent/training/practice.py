"""Practice: the initial states of a fine-tuning run's rollouts, different ones in every iteration.

No initial state repeats, so none is overfitted. They depend on the iteration alone, so one that is repeated after a
crash sees the same. With `focus` they also depend on the latest evaluation, which a checkpoint holds: task k of T, with
failure rate f_k there, gets

    n (1 - focus) + n focus T f_k / sum f      initial states, but at most MOST_FOCUS n

in place of n each: there is little to learn from tasks that hardly fail.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Interval

from agent.runs.seeds import FIRST_EVALUATION_SEED, FIRST_PRACTICE_SEED, ROUNDS, check_training_seed
from agent.runs.worlds import WorldConfig
from envs.errors import UserError
from envs.types import EpisodeSpec
from rollout.types import Trajectory
from rollout.weights import staleness

MOST_FOCUS = 8
"""Maximum of a task's episodes in an iteration, as a multiple of an even share."""


@dataclass(frozen=True, kw_only=True)
class PracticeConfig(WorldConfig):
    """What to practise."""

    episodes_per_task: Annotated[int, Interval(ge=1, le=100_000)] = 32
    """In an iteration; with focus, on average."""
    focus: Annotated[float, Interval(ge=0, le=1)] = 0.0
    """Share of the episodes that is distributed by the tasks' failure rates in the run's latest evaluation."""
    first_seed: Annotated[int, Interval(ge=FIRST_PRACTICE_SEED, lt=FIRST_EVALUATION_SEED)] = FIRST_PRACTICE_SEED
    """Seeds count up from here, stay below evaluation's, and lie above those of demonstrations."""
    num_worlds: Annotated[int, Interval(ge=1, le=65_536)] = 16
    """Parallel worlds in each process."""


def practice_specs(
    config: PracticeConfig,
    suite: str,
    tasks: Sequence[str],
    iteration: int,
    round_: int = 0,
    repeats: int = 1,
    success: Mapping[str, float] | None = None,
) -> list[EpisodeSpec]:
    """Initial states of one round of an iteration, tasks interleaved.

    Args:
        iteration: counted from 0.
        round_: counted from 0, below ROUNDS.
        repeats: runs of each initial state, so that each task has episodes_per_task episodes.
        success: rate of each task in the latest evaluation; None or empty before the first. Used by focus only.

    Raises:
        UserError: episodes_per_task is no multiple of repeats, or the seeds reach evaluation's.
    """
    count, rest = divmod(config.episodes_per_task, repeats)
    if rest or not count:
        raise UserError(f"practice.episodes_per_task is {config.episodes_per_task}, expected a multiple of {repeats}")
    most = count * MOST_FOCUS if config.focus else count
    first = config.first_seed + (iteration * ROUNDS + round_) * most
    check_training_seed(first)
    check_training_seed(first + most - 1)
    counts = [min(most, round(count * share)) for share in _shares(config.focus, tasks, success)]
    return [
        EpisodeSpec(suite=suite, task=task, seed=first + number, variation=config.variation)
        for number in range(max(counts))
        for task, own in zip(tasks, counts, strict=True)
        if number < own
    ]


def _shares(focus: float, tasks: Sequence[str], success: Mapping[str, float] | None) -> list[float]:
    """Of each task, as a multiple of an even share."""
    failures = [1.0 - success[task] if success else 1.0 for task in tasks]
    mean = sum(failures) / len(failures)
    return [1.0 - focus + focus * (failed / mean if mean else 1.0) for failed in failures]


def check_practice(config: PracticeConfig, iterations: int, *, rounds: int, repeats: int) -> None:
    """Check that the seeds suffice for every iteration.

    Args:
        rounds: maximum per iteration.

    Raises:
        UserError: they do not, or episodes_per_task is no multiple of repeats.
    """
    try:
        practice_specs(config, "", ("",), iterations - 1, rounds - 1, repeats)
    except UserError as error:
        raise UserError(f"{iterations} iterations cannot be practised: {error}") from error


def practice_summary(episodes: Sequence[Trajectory], iteration: int) -> dict[str, float]:
    """Metrics of an iteration's episodes: success, length, each reward term's sum per episode, age of the weights."""
    tasks = sorted({t.spec.task for t in episodes})
    of_task = {task: [t.success for t in episodes if t.spec.task == task] for task in tasks}
    terms = {f"reward/{name}": [t.reward_terms[name].sum() for t in episodes] for name in episodes[0].reward_terms}
    values = {
        "practice/success": [t.success for t in episodes],
        "practice/steps": [t.num_steps for t in episodes],
        "practice/episodes": [len(episodes)],
        **{f"practice/success_{task}": won for task, won in of_task.items()},
        **terms,
    }
    means = {name: float(np.mean(numbers)) for name, numbers in values.items()}
    return means | staleness(iteration, [t.policy_version for t in episodes])
