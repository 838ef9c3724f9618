"""Demonstrations of a world's scripted expert, as a LeRobotDataset.

For each task and variation the dataset holds the first `episodes_per_task` seeds, counted from `first_seed`, in which
the expert succeeds; seeds in which it fails are skipped, recorded in meta/failed_episodes.jsonl and counted. So the
episodes do not depend on the number of workers or on interruptions; only their order does.

meta/demonstrations.json records the world, device and noise; adding episodes with others is refused. More tasks, seeds
or episodes may be added; episodes of the dataset that the config does not ask for are reported.
"""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TextIO

from agent.runs.checks import check_config, check_episodes
from agent.runs.messages import say
from agent.runs.names import check_name
from agent.runs.progress import EpisodesBar, progress_bars
from agent.runs.seeds import check_training_seed
from agent.runs.worlds import amount_of
from agent.training.config import DemonstrationsConfig
from envs.errors import UserError
from envs.make import check_device, make_world
from envs.types import EpisodeSpec
from envs.world import World
from rollout.expert import ExpertPolicy
from rollout.types import Trajectory
from rollout.workers.workers import WorkerReport, Workers, WorkersConfig
from vla_model.files.folders import read_json, write_json, write_whole

FAILED_PATH = "meta/failed_episodes.jsonl"
HOW_PATH = "meta/demonstrations.json"
_NOISE = ("noise_share", "noise_correlation")


@dataclass(frozen=True, kw_only=True)
class Demonstrations:
    """Outcome of collecting."""

    episodes: dict[str, int]
    """{task: successful episodes in the dataset}"""
    failed: dict[str, dict[str, int]]
    """{task: {reason: number of failed episodes}}, over all sessions."""
    workers: WorkerReport = field(default_factory=WorkerReport)
    """Deaths and replacements of workers in this session."""


class DemonstrationsLedger:
    """Which episodes succeeded, which failed, and which to run next."""

    def __init__(self, config: DemonstrationsConfig, suite: str, tasks: Sequence[str]) -> None:
        """
        Raises:
            UserError: a task does not exist.
        """
        self.tasks = tuple(check_name("task", task, tasks) for task in config.tasks) or tuple(tasks)
        self.succeeded: set[str] = set()
        self.failed: dict[str, str] = {}
        self._config = config
        self._suite = suite
        self._kinds = [(task, variation) for variation in config.variations for task in self.tasks]

    def missing(self) -> list[EpisodeSpec]:
        """Untried episodes that would complete every task if all succeeded, tasks interleaved.

        Raises:
            UserError: a task has used up its attempts; the message counts the reasons.
        """
        per_kind = [self._missing_of(*kind) for kind in self._kinds]
        longest = max(len(specs) for specs in per_kind)
        return [specs[i] for i in range(longest) for specs in per_kind if i < len(specs)]

    def requested(self) -> set[str]:
        """Ids of a complete dataset's episodes: of each task and variation the first episodes_per_task that did not
        fail.
        """
        return {spec.id for kind in self._kinds for spec in self._candidates(*kind)}

    def summary(self) -> Demonstrations:
        episodes = {task: sum(spec.id in self.succeeded for spec in self._attempts_of(task)) for task in self.tasks}
        failed = {task: dict(self._reasons(self._attempts_of(task))) for task in self.tasks}
        return Demonstrations(episodes=episodes, failed=failed)

    def _attempts_of(self, task: str) -> list[EpisodeSpec]:
        return [spec for variation in self._config.variations for spec in self._attempts(task, variation)]

    def _attempts(self, task: str, variation: str) -> list[EpisodeSpec]:
        """All episodes that may be tried, in order."""
        config = self._config
        count = math.ceil(config.attempts_per_episode * config.episodes_per_task)
        last = check_training_seed(check_training_seed(config.first_seed) + count - 1)
        return [
            EpisodeSpec(suite=self._suite, task=task, seed=seed, variation=variation)
            for seed in range(config.first_seed, last + 1)
        ]

    def _candidates(self, task: str, variation: str) -> list[EpisodeSpec]:
        """The first episodes_per_task that did not fail."""
        untried = [spec for spec in self._attempts(task, variation) if spec.id not in self.failed]
        return untried[: self._config.episodes_per_task]

    def _reasons(self, attempts: Sequence[EpisodeSpec]) -> Counter[str]:
        return Counter(self.failed[spec.id] for spec in attempts if spec.id in self.failed)

    def _missing_of(self, task: str, variation: str) -> list[EpisodeSpec]:
        candidates, count = self._candidates(task, variation), self._config.episodes_per_task
        if len(candidates) < count:
            attempts = self._attempts(task, variation)
            reasons = ", ".join(f"{reason} {times} times" for reason, times in self._reasons(attempts).most_common())
            where = f"{task}, variation {variation}," if self._config.further_variations else task
            raise UserError(
                f"the expert of {where} cannot succeed in {count} of {len(attempts)} episodes: {reasons}; "
                "raise attempts_per_episode, or leave the task out"
            )
        return [spec for spec in candidates if spec.id not in self.succeeded]


def collect_demonstrations(config: DemonstrationsConfig, root: Path, workers: WorkersConfig) -> Demonstrations:
    """Add episodes to the dataset in `root` until every task has enough.

    It may be interrupted at any time: an episode is on disk before it is counted.

    Args:
        root: the dataset's folder, new or of an earlier call.
        workers: the pool, of `config.num_worlds` worlds per process.

    Raises:
        UserError: a field is out of range, see check_demonstrations, `root` holds other data, or the expert fails too
            often.
    """
    check_config(config)
    check_config(workers)
    check_device(config.world, config.device)
    example = make_world(config.world, 1)
    try:
        check_demonstrations(config, example)
        with Workers(
            partial(config.make_worlds, config.num_worlds),
            partial(_expert, config),
            workers,
        ) as processes:
            report = processes.report
            outcome = fill_dataset(config, example, root, processes.collect, report.set_aside, report.broken)
            for line in report.lines():
                print(line, file=sys.stderr)
            return replace(outcome, workers=report)
    finally:
        example.close()


def check_demonstrations(config: DemonstrationsConfig, world: World) -> None:
    """
    Args:
        world: one of its worlds, which is reset.

    Raises:
        UserError: unknown tasks or variation, evaluation seeds, fewer attempts than episodes, or no scripted expert.
    """
    tasks = check_episodes(world, config.tasks, config.variations)
    DemonstrationsLedger(config, world.suite, tasks).missing()
    check_expert(world, tasks, config.variation)


def check_expert(world: World, tasks: Sequence[str], variation: str) -> None:
    """Reset the world to an episode of every task, or of one if all have the same expert, and query it.

    Raises:
        UserError: a task has none, or its world failed to begin the episode.
    """
    tasks = tasks or world.tasks
    for task in tasks[:1] if world.one_expert else tasks:
        _, info = world.reset_to([EpisodeSpec(suite=world.suite, task=task, seed=0, variation=variation)], [0])
        if (broken := info.get("broken", {}).get(0)) is not None:
            raise UserError(f"task {task!r} of {world.suite} cannot begin: {broken}")
        try:
            world.expert_action()
        except NotImplementedError as error:
            raise UserError(
                f"task {task!r} of {world.suite} has no scripted expert ({error}); give it an expert_action "
                "(docs/your_task.md), or clone recorded episodes with --data"
            ) from error


def fill_dataset(
    config: DemonstrationsConfig,
    world: World,
    root: Path,
    run: Callable[[Sequence[EpisodeSpec]], Iterator[Trajectory]],
    set_aside: Mapping[EpisodeSpec, str],
    broken: Mapping[EpisodeSpec, str] | None = None,
) -> Demonstrations:
    """Run missing episodes and store the successful ones, in rounds, until none is missing.

    Args:
        world: an example, for suite, tasks and spec.
        run: runs every spec once and records every frame; one that it does not return counts as failed.
        set_aside: filled by `run`: {spec: why its workers died}.
        broken: filled by `run`: {spec: reason}.
    """
    from agent.evaluation.evaluate import failure_of
    from rollout.dataset.write import DatasetWriter

    ledger = DemonstrationsLedger(config, world.suite, world.tasks)
    with (
        DatasetWriter(root, world.world_spec, robot_type=world.suite, image_mode=config.image_mode) as writer,
        _failures(root) as (ledger.failed, failures),
        progress_bars() as progress,
    ):
        _check_how(config, root)
        ledger.succeeded = writer.finished_ids()
        _say_others(ledger, root)
        done = sum(ledger.summary().episodes.values())
        total = len(ledger.tasks) * len(config.variations) * config.episodes_per_task
        amount = amount_of("demonstration", len(config.variations) * config.episodes_per_task, ledger.tasks)
        say("collect", f"{amount} in {root}; {done:,} are there")
        bar = EpisodesBar(progress, "demonstrations", total, completed=done)
        while specs := ledger.missing():
            for trajectory in run(world.in_order(specs)):
                if (reason := failure_of(trajectory)) is None:
                    writer.append(trajectory)
                    ledger.succeeded.add(trajectory.spec.id)
                else:
                    _note_failure(ledger, failures, trajectory.spec, reason)
                bar.show(trajectory, counts=trajectory.success)
            for spec in specs:
                if spec in set_aside:
                    _note_failure(ledger, failures, spec, f"its workers died, {set_aside[spec]}")
                elif broken and spec in broken:
                    _note_failure(ledger, failures, spec, broken[spec])
    return ledger.summary()


@contextmanager
def _failures(root: Path) -> Generator[tuple[dict[str, str], TextIO]]:
    """The recorded failures, {id: reason}, and the file to append to.

    An incomplete line, e.g. after a full disk, is dropped: that episode is tried again.
    """
    path, noted, whole = root / FAILED_PATH, dict[str, str](), True
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ():
        try:
            row = json.loads(line)
            noted[row["id"]] = row["failure"]
        except (ValueError, KeyError, TypeError):
            whole = False
    if not whole or (path.exists() and not path.read_bytes().endswith(b"\n")):
        write_whole(path, "".join(_failure_line(id_, reason) for id_, reason in noted.items()))
    with path.open("a", encoding="utf-8") as file:
        yield noted, file


def _check_how(config: DemonstrationsConfig, root: Path) -> None:
    """
    Raises:
        UserError: the dataset was collected with another world, device or noise.
    """
    names = ("world", "device", "noise_std", *(_NOISE if config.noise_std else ()))
    settings = {name: getattr(config, name) for name in names}
    path = root / HOW_PATH
    if path.exists():
        found = read_json(path, ("world", "device", "noise_std"), "delete it, and the current settings are recorded")
        lines = [
            f"{name} was {found[name]!r}, now {value!r}"
            for name, value in settings.items()
            if name in found and found[name] != value
        ]
        if lines:
            raise UserError(
                f"the episodes in {root} were demonstrated otherwise: {'; '.join(lines)}; use the same settings, or "
                "collect into another folder"
            )
    write_json(path, settings)


def _say_others(ledger: DemonstrationsLedger, root: Path) -> None:
    """Report episodes that the config does not ask for, as training uses all episodes of a dataset."""
    others = sorted(ledger.succeeded - ledger.requested())
    if others:
        print(
            f"{root} also holds {len(others)} episodes that were not requested: {others[0]}, ...; training uses them "
            "too",
            file=sys.stderr,
        )


def _note_failure(ledger: DemonstrationsLedger, file: TextIO, spec: EpisodeSpec, reason: str) -> None:
    ledger.failed[spec.id] = reason
    file.write(_failure_line(spec.id, reason))
    file.flush()


def _failure_line(id_: str, reason: str) -> str:
    return json.dumps({"id": id_, "failure": reason}) + "\n"


def _expert(config: DemonstrationsConfig, world: World) -> ExpertPolicy:
    return ExpertPolicy(
        world,
        noise_std=config.noise_std,
        noise_share=config.noise_share,
        noise_correlation=config.noise_correlation,
    )
