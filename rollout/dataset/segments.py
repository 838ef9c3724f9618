"""Training segments of a dataset: which episodes, which parts of them, and with which instruction."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np

from envs.errors import UserError
from rollout.dataset.foreign.outcomes import unused_episodes
from rollout.dataset.foreign.reading import DEFAULT_HELD_OUT, ReadingConfig
from rollout.dataset.frame_cache import CachedDataset
from rollout.dataset.read import DatasetReader, read_info, read_marks
from rollout.dataset.schema import INTERVENTION, is_own


def training_segments(
    root: str | Path, is_drive: bool, failed_too: bool, left_out: Collection[int] = ()
) -> dict[int, list[tuple[int, int]]]:
    """{episode_index: [(begin, end), ...]} of the segments to train on, counted within the episode.

    Args:
        root: of the dataset.
        is_drive: use the interventions of episodes that have any, and whole episodes that succeeded without.
        failed_too: use failed episodes; ignored for drives.
        left_out: numbers of episodes that are not used.

    Raises:
        UserError: no dataset, one without episodes, or one without the success flags that are needed.
    """
    reader = DatasetReader(root, left_out)
    if not reader.episodes:
        raise UserError(f"{root} has no episodes " + ("but those left out" if left_out else "yet"))
    found = {}
    for row in reader.episodes:
        parts = _parts(reader, row) if is_drive else _whole(reader, row, failed_too)
        if parts and row["length"]:
            found[row["episode_index"]] = parts
    return found


def succeeded(row: Mapping[str, Any], info: Mapping[str, Any]) -> bool:
    """Whether an episode that is used succeeded, or has no success flag. Of other programs' recordings those that
    failed are not used (foreign/outcomes.py), unless they are to be used like the others.

    Args:
        row: of meta/episodes.
        info: info.json of its dataset.
    """
    return not is_own(info) or row.get("success", True)


def check_successes(roots: Sequence[str], reading: ReadingConfig) -> None:
    """Check that an episode of these datasets succeeded; without success flags, all are taken to have.

    Raises:
        UserError: none did, or a file is missing or damaged.
    """
    for root in roots:
        reader = DatasetReader(root, unused_episodes(root, reading))
        if any(row["length"] and succeeded(row, reader.info) for row in reader.episodes):
            return
    raise UserError(
        f"no episode of {', '.join(roots)} was selected: none succeeded; record successes, or name them with "
        "--auxiliary beside others"
    )


def has_held_out(root: str | Path, reading: ReadingConfig, seed: int) -> bool:
    """Whether an episode of a dataset is held out.

    Args:
        root: of the dataset.
        reading: with the share.
        seed: of the choice.
    """
    if not _held_out_share(root, reading):
        return False
    segments = training_segments(root, is_drive=False, failed_too=True, left_out=unused_episodes(root, reading))
    keep_part(segments, root, "held out", reading, seed)
    return bool(segments)


def keep_part(
    segments: dict[int, list[tuple[int, int]]],
    root: str | Path,
    part: Literal["trained on", "held out", "all"],
    reading: ReadingConfig,
    seed: int,
) -> None:
    """Remove the episodes that are, or are not, held out.

    Whether an episode is held out depends on the seed and its number alone, so it stays so when a dataset grows; at
    least one is, unless it is the only one.

    Args:
        segments: of `training_segments`.
        root: of the dataset.
        part: the one to keep.
        reading: with the share.
        seed: of the choice.
    """
    if part == "all":
        return
    share = _held_out_share(root, reading)
    order = {episode: np.random.default_rng([seed, episode]).random() for episode in segments}
    held_out = {episode for episode, place in order.items() if place < share}
    if share and not held_out and len(order) > 1:
        held_out = {min(order, key=lambda episode: order[episode])}
    if len(held_out) == len(order) > 1:
        held_out.remove(max(order, key=lambda episode: order[episode]))
    for episode in list(segments):
        if (episode in held_out) != (part == "held out"):
            del segments[episode]


def _held_out_share(root: str | Path, reading: ReadingConfig) -> float:
    if reading.held_out is not None:
        return reading.held_out
    return 0.0 if is_own(read_info(Path(root))) else DEFAULT_HELD_OUT


def _whole(reader: DatasetReader, row: dict[str, Any], failed_too: bool) -> list[tuple[int, int]]:
    return [(0, row["length"])] if failed_too or _succeeded(row, reader.root) else []


def _parts(reader: DatasetReader, row: dict[str, Any]) -> list[tuple[int, int]]:
    """The segments of a drive's episode."""
    by_hand = read_marks(reader.root, reader.info, row, INTERVENTION)
    if not by_hand.any():
        return _whole(reader, row, failed_too=False)
    edges = np.flatnonzero(np.diff(by_hand.astype(np.int8), prepend=0, append=0)).tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))


def _succeeded(row: dict[str, Any], root: Path) -> bool:
    if "success" not in row:
        raise UserError(
            f"{root} has no success flags, as drives of `llamarm drive` and `llamarm console` have, so its failed "
            "episodes can't be told; name it with --data, and failed episodes with --without-episodes"
        )
    return row["success"]


def split_by_task(
    dataset: CachedDataset, tasks: Mapping[int, str], row: dict[str, Any], begin: int, end: int
) -> Iterator[tuple[int, int, str]]:
    """Split the rows [begin, end) of one episode by task: (begin, end, instruction) of each segment.

    Args:
        dataset: of the episode.
        tasks: {task_index: instruction}.
        row: of the episode, in meta/episodes.
        begin: counted from the dataset's first row.
        end: likewise.

    Raises:
        UserError: the tasks of frames and episode contradict each other.
    """
    index = dataset.tasks[begin:end].ravel()
    if not index.size:  # a dataset without the column has one task per episode
        index = np.zeros(end - begin, np.int64)
    edges = [0, *(np.flatnonzero(np.diff(index)) + 1).tolist(), end - begin]
    for first, last in pairwise(edges):
        number = int(index[first])
        only = row["tasks"][0] if len(edges) == 2 and len(row["tasks"]) == 1 and not tasks else None
        task = tasks.get(number, only)
        if task is None or task not in row["tasks"]:
            raise UserError(
                f"episode {row['episode_index']} of {dataset.root} has the tasks {row['tasks']}, but its frames from "
                f"{begin + first} on are of task {number}, which meta/tasks.parquet "
                + ("does not have" if task is None else f"calls {task!r}")
            )
        yield begin + first, begin + last, task
