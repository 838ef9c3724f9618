"""The command `llamarm data`: what a dataset holds, how it would be read, and what would be refused."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from annotated_types import MinLen
from rich.table import Table

from agent.commands.shared.options import parse, recipe_for
from agent.report.tables import print_table
from agent.runs.messages import say, say_next
from agent.runs.worlds import counted
from agent.training.demonstrations import HOW_PATH
from envs.errors import UserError
from rollout.dataset.check import check_worlds
from rollout.dataset.foreign.doctor import Examination, examine
from rollout.dataset.foreign.infer import MARGIN
from rollout.dataset.foreign.outcomes import Outcomes
from rollout.dataset.foreign.reading import ReadingConfig, as_entries
from rollout.dataset.read import check_is_dataset, read_episodes
from rollout.dataset.schema import is_own
from rollout.dataset.segments import check_successes
from vla_model.files.folders import read_json


@dataclass(frozen=True, kw_only=True)
class Data:
    """Examine LeRobotDatasets before training; exits with 1 if training on one would be refused."""

    data: Annotated[tuple[str, ...], MinLen(1), tyro.conf.Positional, tyro.conf.arg(metavar="DIR ...")]
    """Folders of datasets, by whatever program."""
    reading: Annotated[ReadingConfig, tyro.conf.arg(name="")] = field(default_factory=ReadingConfig)
    """How they would be read."""
    every_frame: bool = False
    """Decode all frames, as training would; by default one of each file."""


def run(args: list[str]) -> None:
    """Run the command.

    Raises:
        UserError: a folder holds no dataset, or an episode to leave out does not exist.
    """
    options = parse(Data, "data", args)
    options.reading.check_left_out(options.data)
    for root in options.data:
        check_is_dataset(Path(root))
    say("data", f"reads all numbers, and decodes {'every frame' if options.every_frame else 'one frame of each file'}")
    found = [examine(root, options.reading, every_frame=options.every_frame) for root in options.data]
    if not any(one.refused for one in found):
        found[0].tried(check_successes, options.data, options.reading)
    for number, one in enumerate(found):
        if number:
            print()
        _say(one, with_failed=options.reading.with_failed)
    refused = any(one.refused for one in found)
    several = len(found) > 1
    entries = [entry for one in found for entry in as_entries(one.unreadable, str(one.root) if several else "")]
    if entries:
        before = " ".join((*options.reading.without_episodes, *entries))
        print(f"\nTo leave out the episodes that would be refused: --without-episodes {before}")
    if len(found) > 1 and not refused:
        try:
            check_worlds(options.data, reading=options.reading)
            print("\nThe datasets fit each other.")
        except UserError as error:
            refused = True
            print(f"\nrefused: {error}")
    if refused:
        sys.exit(1)
    first = Path(options.data[0])
    reading = [arg for arg in args if arg not in options.data and arg.replace("_", "-") != "--every-frame"]
    out = f"runs/{first.resolve().name}"
    say_next("train on it", "train", *_cloning(first), "--data", *options.data, *reading, "--out", out)


def _cloning(root: Path) -> list[str]:
    """The recipe for a dataset; and of our demonstrations in a world of no recipe, that world and its tasks."""
    from agent.recipes import RECIPES

    how = root / HOW_PATH
    world = read_json(how).get("world", "") if how.exists() else ""
    recipe = recipe_for(world)
    if world in ("", RECIPES[recipe]().from_demonstrations().demonstrations.world):
        return [recipe]
    tasks = dict.fromkeys(row["task_name"] for row in read_episodes(root))
    return [recipe, "--demonstrations.world", world, "--demonstrations.tasks", *tasks]


def _say(found: Examination, *, with_failed: bool) -> None:
    for line in _summary(found):
        print(line)
    if found.cameras:
        table = Table("camera", "feature", "recorded", "the policy sees")
        for row in found.cameras:
            table.add_row(*row)
        print_table(table)
    if found.dimensions:
        table = Table("", "name", "unit", "smallest", "largest", "range", "outside", "note")
        for d in found.dimensions:
            numbers = f"{d.least:.4g}", f"{d.most:.4g}", f"{d.low:.4g} to {d.high:.4g}", f"{d.beyond:.2%}"
            table.add_row(d.vector, d.name, d.unit, *numbers, d.note)
        print_table(table)
        if not is_own(found.info):
            print(
                "A range goes from the smallest 1 % to the largest 99 % quantile of any episode, widened by "
                f"{MARGIN:.0%}; a switch has two values."
            )
    if found.tasks:
        table = Table("instruction", "episodes", "frames")
        for task, (episodes, frames) in found.tasks.items():
            table.add_row(task, str(episodes), str(frames))
        print_table(table)
    if found.left_out:
        print(f"left out: {' '.join(as_entries(found.left_out))}")
    if found.outcomes is not None:
        print(_outcomes(found.outcomes, with_failed=with_failed))
    for line in found.warnings:
        print(line)
    for line in found.refused:
        print(f"refused: {line}")
    if not found.refused:
        print("Nothing would be refused.")


def _outcomes(outcomes: Outcomes, *, with_failed: bool) -> str:
    """Which episodes failed, and what becomes of them."""
    succeeded = counted(len(outcomes.succeeded), "episode")
    said = f"by {outcomes.key}, {succeeded} succeeded and {len(outcomes.failed):,} failed"
    if not outcomes.failed:
        return said
    becomes = "used all the same" if with_failed else "left out; --with-failed uses them"
    return f"{said}: {' '.join(as_entries(outcomes.failed))} ({becomes})"


def _summary(found: Examination) -> Iterator[str]:
    yield str(found.root)
    if not found.info:
        return
    info = found.info
    robot = f" of {info['robot_type']}" if info.get("robot_type") else ""
    yield f"LeRobotDataset {info['codebase_version']}{robot}, {info['fps']:g} frames per second"
    if lengths := found.lengths:
        seconds = [length / info["fps"] for length in (min(lengths), int(np.median(lengths)), max(lengths))]
        yield (
            f"{counted(len(lengths), 'episode')}, {counted(sum(lengths), 'frame')}, "
            f"{sum(lengths) / info['fps'] / 60:.1f} min; an episode "
            f"lasts {seconds[0]:.1f} to {seconds[2]:.1f} s, median {seconds[1]:.1f} s"
        )
