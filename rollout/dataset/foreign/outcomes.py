"""Which episodes of other programs' recordings failed, so that they are not cloned.

    success                 of an episode's row in meta/episodes: whether it succeeded
    next.success            of a frame, LeRobot's: whether the task is done after its action. One such frame suffices,
                            as in LeRobot's own evaluation; recorders set it in the last frame alone, or in several
    is_episode_successful   of a frame, DROID's: whether the episode succeeded

The first of these that a dataset has counts; an episode without a value, e.g. null, has not failed. `next.reward` says
nothing: its scale is the task's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from envs.errors import UserError
from rollout.dataset import schema
from rollout.dataset.foreign.reading import ReadingConfig
from rollout.dataset.read import read_episodes, read_flags, read_info

_OF_EPISODE = "success"
_OF_FRAMES = (schema.SUCCESS, "is_episode_successful")


@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """Success flags of a dataset."""

    key: str
    """Where they are."""
    succeeded: frozenset[int]
    """Numbers of the episodes."""
    failed: frozenset[int]
    """Likewise; the other episodes have no flag."""


def outcomes_of(root: Path, info: dict[str, Any], rows: Sequence[dict[str, Any]]) -> Outcomes | None:
    """The success flags of these episodes; None if the dataset is our own, or has none.

    Args:
        root: of the dataset.
        info: its info.json.
        rows: of meta/episodes.

    Raises:
        UserError: a file is missing or damaged, or a flag is no number.
    """
    if schema.is_own(info) or not rows:
        return None
    if any(row.get(_OF_EPISODE) is not None for row in rows):
        key, flags = _OF_EPISODE, [row.get(_OF_EPISODE) for row in rows]
    elif there := [key for key in _OF_FRAMES if key in info["features"]]:
        key, flags = there[0], read_flags(root, info, rows, there[0])
    else:
        return None
    numbers = [row["episode_index"] for row in rows]
    return Outcomes(
        key=key,
        succeeded=frozenset(n for n, flag in zip(numbers, flags, strict=True) if flag),
        failed=frozenset(n for n, flag in zip(numbers, flags, strict=True) if flag is not None and not flag),
    )


def unused_episodes(root: str | Path, reading: ReadingConfig) -> frozenset[int]:
    """The numbers of the episodes that are not used: those named, and of other programs' recordings those that failed.

    Raises:
        UserError: a file is missing or damaged, or every episode failed.
    """
    named = reading.left_out(root)
    if reading.with_failed:
        return named
    path = Path(root) / schema.INFO_PATH
    return named | _failed(Path(root), named, path.stat().st_mtime_ns if path.exists() else 0)


@lru_cache(maxsize=64)
def _failed(root: Path, named: frozenset[int], _written_ns: int) -> frozenset[int]:
    """The episodes that failed, of those not named; read again when info.json was written, as with every episode."""
    rows = [row for row in read_episodes(root, named) if row["length"]]
    found = outcomes_of(root, read_info(root), rows)
    if found is None:
        return frozenset()
    if len(found.failed) == len(rows):
        raise UserError(f"no episode of {root} succeeded, by {found.key}; --with-failed uses them all the same")
    return found.failed
