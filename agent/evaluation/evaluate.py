"""Evaluation: the same episodes for every policy, success rates with intervals, paired results.

An evaluation is a fixed list of EpisodeSpecs. Each result is keyed by its spec's id, so two policies that ran the same
list can be compared episode by episode. Its seeds lie above all training seeds (agent/runs/seeds.py), so training
uses no evaluated episode.

Two averages are kept apart because published tables differ: `success` pools all episodes, `mean_over_tasks` weighs
every task alike (statistics.py has more, and their intervals).

Shape letters: E experts.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agent.evaluation.expert_usage import UsageByPhase
from agent.evaluation.statistics import Proportion
from agent.evaluation.videos import write_video
from agent.runs.seeds import FIRST_EVALUATION_SEED
from envs.errors import UserError
from envs.types import EpisodeSpec, why_failed
from envs.world import World
from rollout.types import RunEpisodes, Trajectory

LOST = "no worker survived it"
"""Failure of an episode that ended every worker that ran it."""


def evaluation_specs(
    suite: str,
    tasks: Sequence[str],
    episodes_per_task: int,
    variation: str = "train",
    first_seed: int = FIRST_EVALUATION_SEED,
) -> tuple[EpisodeSpec, ...]:
    """The first `episodes_per_task` held-out episodes of each task, tasks interleaved.

    A task's episodes depend neither on the other tasks nor on their number, so a short evaluation is a part of a long
    one.

    Raises:
        UserError: a training seed, no task, a task named twice, or fewer than one episode.
    """
    if first_seed < FIRST_EVALUATION_SEED:
        raise UserError(
            f"evaluation seeds begin at {FIRST_EVALUATION_SEED}, training has those below; got {first_seed}"
        )
    if not tasks or len(set(tasks)) != len(tasks):
        raise UserError(f"expected at least one task and none twice, got {list(tasks)}")
    if episodes_per_task < 1:
        raise UserError(f"episodes_per_task must be at least 1, got {episodes_per_task}")
    return tuple(
        EpisodeSpec(suite=suite, task=task, seed=first_seed + i, variation=variation)
        for i in range(episodes_per_task)
        for task in tasks
    )


@dataclass(frozen=True, kw_only=True)
class EpisodeResult:
    """Outcome of one episode."""

    spec: EpisodeSpec
    instruction: str = ""
    """The world's, whatever instruction a control gave to the policy."""
    success: bool = False
    failure: str | None
    """Why it failed: the world's reason, "step limit", or why it was lost; None where it succeeded."""
    num_steps: int = 0
    """Control steps."""
    num_decisions: int = 0
    """Inferences of the policy."""
    sum_reward: float = 0.0
    max_reward: float = 0.0
    policy_version: int = -1
    video: str | None = None
    """File name of its video."""
    lost: bool = False
    """Whether it could not be run to its end, so that only its failure is known."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Results of a list of specs, in its order."""

    results: tuple[EpisodeResult, ...]
    n_action_steps: int | None
    """Actions executed of each chunk; None for the whole chunk."""
    eval_s: float
    """Wall-clock time, videos included."""
    steps_per_s: float
    """Control steps per second of all worlds together, over the episodes without a video (all, if all have one)."""
    frames_per_s: float
    """Camera frames per second, over the same episodes."""
    expert_usage: dict[str, NDArray[np.float64]]
    """{task: [layers, E]}: mean over all decisions; empty if the policy has no experts."""
    task_groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Of the world."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """Of the world."""
    decision_s: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    """Duration of the policy's call at each decision of every episode, for all worlds that it decided for together."""

    @property
    def success(self) -> Proportion:
        return Proportion.of(r.success for r in self.results)

    @property
    def per_task(self) -> dict[str, Proportion]:
        return self._rates(lambda r: r.spec.task)

    @property
    def per_variation(self) -> dict[str, Proportion]:
        return self._rates(lambda r: r.spec.variation)

    def of_variation(self, name: str) -> dict[str, Proportion]:
        """Per task, over the episodes of one variation."""
        return self.only(r for r in self.results if r.spec.variation == name).per_task

    @property
    def mean_over_tasks(self) -> float:
        """Unweighted mean of the tasks' success rates; an episode that was lost has failed."""
        return float(np.mean([p.rate for p in self.per_task.values()]))

    @property
    def failures(self) -> dict[str, int]:
        """How often each reason ended an episode without success, most frequent first."""
        return dict(Counter(r.failure for r in self.results if r.failure is not None).most_common())

    @property
    def instructions(self) -> dict[EpisodeSpec, str]:
        """Of every episode that is not lost."""
        return {r.spec: r.instruction for r in self.results if not r.lost}

    def by(self, key: Callable[[EpisodeResult], str]) -> dict[str, list[EpisodeResult]]:
        """Results grouped by a name, names sorted."""
        return {name: list(rows) for name, rows in groupby(sorted(self.results, key=key), key)}

    def only(self, results: Iterable[EpisodeResult]) -> Evaluation:
        """The evaluation of some of the episodes; times are those of all."""
        return replace(self, results=tuple(results))

    def _rates(self, key: Callable[[EpisodeResult], str]) -> dict[str, Proportion]:
        return {name: Proportion.of(r.success for r in rows) for name, rows in self.by(key).items()}


def evaluate(
    run: RunEpisodes,
    world: World,
    specs: Sequence[EpisodeSpec],
    *,
    n_action_steps: int | None = None,
    videos_per_task: int = 0,
    videos_dir: Path | None = None,
    on_trajectory: Callable[[Trajectory], None] | None = None,
    broken: Mapping[EpisodeSpec, str] | None = None,
) -> Evaluation:
    """Run every spec once and summarise.

    Args:
        run: e.g. `partial(collect, policy, world)` or `workers.collect`. An episode that it does not return has failed.
        world: an example of those that `run` uses.
        n_action_steps: actions executed of each chunk; the whole chunk where None.
        videos_per_task: of the first so many episodes of each task and variation, successful or not. They run
            separately, as only they are rendered at every step.
        videos_dir: folder of the videos; needed with videos_per_task.
        on_trajectory: called after each episode, e.g. by a progress bar.
        broken: filled by `run`: why episodes that it does not return broke, `workers.report.broken`.

    Raises:
        UserError: no specs, a spec twice, a spec of another suite or task, or videos without a folder.
    """
    _check_specs(specs, world)
    if videos_per_task > 0 and videos_dir is None:
        raise UserError("videos_per_task needs videos_dir, the folder the videos are written to")
    recorded = _first_of_each_task(specs, videos_per_task)
    results: dict[str, EpisodeResult] = {}
    failed: dict[EpisodeSpec, str] = {}
    usage: dict[str, NDArray[np.float32]] = {}
    decisions_s = [np.zeros(0)]
    speeds = []
    began_s = time.perf_counter()
    for batch, videos in (
        ([s for s in specs if s.id in recorded], videos_dir),
        ([s for s in specs if s.id not in recorded], None),
    ):
        batch_began_s, steps, frames = time.perf_counter(), 0, 0
        for trajectory in run(world.in_order(batch), n_action_steps=n_action_steps, all_frames=videos is not None):
            if trajectory.broken:
                failed[trajectory.spec] = trajectory.failure or ""
                continue
            results[trajectory.spec.id] = _result(trajectory, videos, world.world_spec.control_dt_s)
            if trajectory.decision_s is not None:
                decisions_s.append(trajectory.decision_s)
            if trajectory.expert_usage is not None:
                usage[trajectory.spec.id] = trajectory.expert_usage
            steps += trajectory.num_steps
            frames += len(trajectory.frame_step) * len(trajectory.frames)
            if on_trajectory is not None:
                on_trajectory(trajectory)
        if batch:
            batch_s = time.perf_counter() - batch_began_s
            speeds.append((steps / batch_s, frames / batch_s))
    failed.update(broken or {})
    return Evaluation(
        results=tuple(
            results.get(spec.id) or EpisodeResult(spec=spec, failure=failed.get(spec, LOST), lost=True)
            for spec in specs
        ),
        n_action_steps=n_action_steps,
        eval_s=time.perf_counter() - began_s,
        steps_per_s=speeds[-1][0],
        frames_per_s=speeds[-1][1],
        expert_usage=_usage_by_task([(spec.task, usage[spec.id]) for spec in specs if spec.id in usage]),
        task_groups=world.task_groups,
        notes=world.notes,
        decision_s=np.concatenate(decisions_s),
    )


def _usage_by_task(episodes: Sequence[tuple[str, NDArray[np.float32]]]) -> dict[str, NDArray[np.float64]]:
    usage = UsageByPhase()
    for task, of_episode in episodes:
        usage.add(task, np.full(len(of_episode), "all"), of_episode)
    return usage.by_task()


def _check_specs(specs: Sequence[EpisodeSpec], world: World) -> None:
    if not specs:
        raise UserError("no episode to evaluate: specs is empty")
    doubled = [id_ for id_, count in Counter(spec.id for spec in specs).items() if count > 1]
    if doubled:
        raise UserError(f"{len(doubled)} specs come twice, the first is {doubled[0]}; results are keyed by id")
    for spec in specs:
        if spec.suite != world.suite or spec.task not in world.tasks:
            raise UserError(f"{spec.id} is not of this world; suite {world.suite}, tasks: {', '.join(world.tasks)}")


def _first_of_each_task(specs: Sequence[EpisodeSpec], count: int) -> set[str]:
    counts: Counter[tuple[str, str]] = Counter()
    chosen = set()
    for spec in specs:
        if counts[spec.task, spec.variation] < count:
            counts[spec.task, spec.variation] += 1
            chosen.add(spec.id)
    return chosen


def failure_of(trajectory: Trajectory) -> str | None:
    """Why an episode failed; None where it succeeded."""
    return why_failed(success=trajectory.success, failure=trajectory.failure, truncated=trajectory.truncated)


def _result(trajectory: Trajectory, videos_dir: Path | None, control_dt_s: float) -> EpisodeResult:
    failure, video = failure_of(trajectory), None
    if videos_dir is not None:
        video = write_video(videos_dir, trajectory, failure=failure, control_dt_s=control_dt_s).name
    return EpisodeResult(
        spec=trajectory.spec,
        instruction=trajectory.instruction,
        success=trajectory.success,
        failure=failure,
        num_steps=trajectory.num_steps,
        num_decisions=len(trajectory.decision_step),
        sum_reward=float(trajectory.reward.sum(dtype=np.float64)),
        max_reward=float(trajectory.reward.max()),
        policy_version=trajectory.policy_version,
        video=video,
    )
