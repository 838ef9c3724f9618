"""Examination of a dataset before training: what is in it, what is inferred, and everything that would be refused.

Vectors are read whole; of every video and picture file one frame is decoded, or all. Ranges are those of the episodes
that can be read.

Shape letters: R rows of all episodes, D vector elements.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError
from envs.types import VectorSpec, WorldSpec
from rollout.dataset import schema
from rollout.dataset.check import TASK, check_numbers, check_tasks, check_times
from rollout.dataset.decode import probe
from rollout.dataset.foreign.features import Features, features_of
from rollout.dataset.foreign.infer import Recordings, infer_world
from rollout.dataset.foreign.outcomes import Outcomes, outcomes_of, unused_episodes
from rollout.dataset.foreign.reading import ReadingConfig
from rollout.dataset.frame_cache import camera_files
from rollout.dataset.read import data_file, read_episodes, read_info, read_tasks, read_vectors
from vla_model.inputs.conversion import Conversion

_COUNTED = ("frame_index", "timestamp", TASK)
_Result = TypeVar("_Result")


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """One element of the state or the action."""

    vector: str
    name: str
    unit: str
    least: float
    """In the data."""
    most: float
    low: float
    """The range."""
    high: float
    note: str
    """switch, constant, or nothing."""
    beyond: float
    """Share of the rows outside the range."""


@dataclass(kw_only=True)
class Examination:
    """What was found."""

    root: Path
    info: dict[str, Any] = field(default_factory=dict)
    lengths: list[int] = field(default_factory=list)
    """Of the episodes."""
    cameras: list[tuple[str, str, str, str]] = field(default_factory=list)
    """(name, feature, recorded, seen by the policy)"""
    dimensions: list[Dimension] = field(default_factory=list)
    tasks: dict[str, tuple[int, int]] = field(default_factory=dict)
    """{instruction: (episodes, frames)}"""
    warnings: list[str] = field(default_factory=list)
    """What is not used, and what may be a mistake."""
    refused: list[str] = field(default_factory=list)
    """Errors; training on the dataset would end with the first."""
    unreadable: set[int] = field(default_factory=set)
    """Numbers of the episodes with errors."""
    left_out: frozenset[int] = frozenset()
    """Numbers of the episodes that were named to be left out, and not examined."""
    outcomes: Outcomes | None = None
    """Success flags of the others, if there are any."""

    def tried(self, function: Callable[..., _Result], *args: Any, of: Iterable[int] = ()) -> _Result | None:
        """The result of a function; None after an error, which is noted as one of these episodes."""
        try:
            return function(*args)
        except UserError as error:
            self.note(str(error), of)
            return None

    def note(self, error: str, of: Iterable[int] = ()) -> None:
        """Add an error, once."""
        self.unreadable.update(of)
        if error not in self.refused:
            self.refused.append(error)


def examine(root: str | Path, reading: ReadingConfig, *, every_frame: bool = False) -> Examination:
    """Examine one dataset.

    Args:
        root: its folder.
        reading: how it would be read.
        every_frame: decode all frames.
    """
    found = Examination(root=Path(root), left_out=reading.left_out(root))
    info = found.tried(read_info, found.root)
    if info is None:
        return found
    found.info = info
    features = found.tried(features_of, info, str(root))
    rows = [row for row in found.tried(read_episodes, found.root, found.left_out) or () if row["length"]]
    rows = _without_failed(found, rows, reading)
    if not rows and not found.refused:
        found.note(f"{root} has no episodes " + ("but those left out" if found.left_out else "yet"))
    found.lengths = [row["length"] for row in rows]
    if features is None or not rows:
        return found
    found.warnings += [f"not used: {line}" for line in features.left_out]
    _read(found, features, rows, reading, every_frame=every_frame)
    return found


def _without_failed(found: Examination, rows: list[dict[str, Any]], reading: ReadingConfig) -> list[dict[str, Any]]:
    """The episodes that training would use, by their success flags, which are noted."""
    found.outcomes = found.tried(outcomes_of, found.root, found.info, rows)
    if found.outcomes is None or reading.with_failed:
        return rows
    if rows and len(found.outcomes.failed) == len(rows):
        found.tried(unused_episodes, found.root, reading)
    return [row for row in rows if row["episode_index"] not in found.outcomes.failed]


def _read(
    found: Examination, features: Features, rows: list[dict[str, Any]], reading: ReadingConfig, *, every_frame: bool
) -> None:
    keys = [key for key in (features.state_key, features.action_key) if key is not None]
    rows, vectors = _vectors(found, rows, [*keys, *_COUNTED])
    if not rows:
        return
    ends = np.cumsum([row["length"] for row in rows]).tolist()
    pieces = [slice(end - row["length"], end) for row, end in zip(rows, ends, strict=True)]
    parts = [{key: values[piece] for key, values in vectors.items()} for piece in pieces]
    _check_rows(found, rows, {key: vectors[key] for key in keys}, parts)
    _note_duplicates(found, rows, [b"".join(part[key].tobytes() for key in keys) for part in parts])
    sound = [row["episode_index"] not in found.unreadable for row in rows]
    keep = np.repeat(sound, [row["length"] for row in rows])
    if not keep.any():
        return
    state = vectors[features.state_key] if features.state_key else np.zeros((len(keep), 0))
    recordings = Recordings(
        root=found.root,
        info=found.info,
        features=features,
        state=state[keep],
        action=vectors[features.action_key][keep],
        lengths=[row["length"] for row, is_sound in zip(rows, sound, strict=True) if is_sound],
    )
    if (world := found.tried(_world_of, recordings, reading)) is not None:
        _note_world(found, recordings, rows, *world, every_frame=every_frame)


def _vectors(
    found: Examination, rows: list[dict[str, Any]], keys: Sequence[str]
) -> tuple[list[dict[str, Any]], dict[str, NDArray[Any]]]:
    """The episodes whose vectors can be read, and these, {feature: [R, D]}."""
    by_file: dict[Path, list[dict[str, Any]]] = {}
    for row in rows:
        by_file.setdefault(data_file(found.root, found.info, row), []).append(row)
    read: list[tuple[list[dict[str, Any]], dict[str, NDArray[Any]]]] = []
    for of_file in by_file.values():
        try:
            read.append((of_file, read_vectors(found.root, found.info, of_file, keys)))
        except UserError:
            for row in of_file:
                one = found.tried(read_vectors, found.root, found.info, [row], keys, of=[row["episode_index"]])
                read += [] if one is None else [([row], one)]
    names = read[0][1] if read else ()
    return [row for of, _ in read for row in of], {
        key: np.concatenate([part[key] for _, part in read]) for key in names
    }


def _check_rows(
    found: Examination,
    rows: list[dict[str, Any]],
    measured: dict[str, NDArray[Any]],
    parts: list[dict[str, NDArray[Any]]],
) -> None:
    """Check numbers, times and tasks.

    Args:
        rows: the episodes.
        measured: {feature: [R, D]}, state and action.
        parts: {feature: [T, D]} of each episode.
    """
    whose, cloned = str(found.root), schema.is_own(found.info)
    found.tried(lambda: check_numbers(whose, found.info, measured, cloned=cloned, episodes=rows))
    tasks = found.tried(read_tasks, found.root) or {}
    for row, part in zip(rows, parts, strict=True):
        number = [row["episode_index"]]
        values = {key: part[key] for key in measured}
        try:
            check_numbers(whose, found.info, values, cloned=cloned, episodes=[row])
        except UserError:
            found.unreadable.update(number)  # the error of all of them together is noted already
        found.tried(check_times, found.root, found.info["fps"], part, [row], of=number)
        index = part[TASK].ravel() if TASK in part else np.zeros(0, np.int64)
        if index.size:
            found.tried(check_tasks, found.root, tasks, index, [row], of=number)
        _note_tasks(found, row, tasks, index)


def _world_of(recordings: Recordings, reading: ReadingConfig) -> tuple[WorldSpec, Conversion | None]:
    if schema.is_own(recordings.info):
        return schema.read_world_spec(dict(recordings.info)), None
    return infer_world([recordings], reading)


def _note_world(
    found: Examination,
    recordings: Recordings,
    rows: list[dict[str, Any]],
    world: WorldSpec,
    conversion: Conversion | None,
    *,
    every_frame: bool,
) -> None:
    of_state = world.state.low, world.state.high
    of_action = world.action.low, world.action.high
    if conversion is not None:
        of_action = conversion.action_low, conversion.action_high
    is_own = conversion is None
    found.dimensions = [
        *_dimensions("state", world.state, recordings.state, of_state, is_own=is_own),
        *_dimensions("action", world.action, recordings.action, of_action, is_own=is_own),
    ]
    found.warnings += [
        f"{d.beyond:.2%} of the rows have {d.name} of the action outside its range: they are clipped"
        for d in found.dimensions
        if d.beyond and d.vector == "action" and conversion is not None
    ]
    for name, camera in camera_files(found.root, found.info, world, conversion).items():
        about = found.info["features"][camera.key].get("info") or {}
        kind = about.get("video.codec", "video") if camera.is_video else "pictures"
        spec = next(spec for spec in world.cameras if spec.name == name)
        resized = f"{spec.width}x{spec.height}" + (
            f", {camera.fit}" if camera.size != (spec.height, spec.width) else ""
        )
        found.cameras.append((name, camera.key, f"{camera.size[1]}x{camera.size[0]} {kind}", resized))
        for error, episodes in probe(found.root, found.info, rows, camera, every_frame=every_frame).items():
            found.note(error, episodes)


def _dimensions(
    vector: str,
    spec: VectorSpec,
    values: NDArray[Any],
    bounds: tuple[Sequence[float], Sequence[float]],
    *,
    is_own: bool,
) -> list[Dimension]:
    found = []
    for i, (name, unit, low, high) in enumerate(zip(spec.names, spec.units, *bounds, strict=True)):
        column = values[:, i]
        count = len(np.unique(column))
        note = "constant" if count == 1 else "switch" if count == 2 else ""
        outside = float(((column < low) | (column > high)).mean())
        ends = float(column.min()), float(column.max())
        found.append(
            Dimension(
                vector=vector,
                name=name,
                unit=unit if is_own else "as recorded",
                least=ends[0],
                most=ends[1],
                low=low,
                high=high,
                note=note,
                beyond=outside,
            )
        )
    return found


def _note_tasks(found: Examination, row: dict[str, Any], tasks: dict[int, str], index: NDArray[Any]) -> None:
    """Count the instructions of an episode's frames."""
    counts = {tasks[n]: int((index == n).sum()) for n in np.unique(index).tolist() if n in tasks}
    for text, count in (counts or {row["tasks"][0]: row["length"]} if row["tasks"] else counts).items():
        episodes, frames = found.tasks.get(text, (0, 0))
        found.tasks[text] = episodes + 1, frames + count


def _note_duplicates(found: Examination, rows: list[dict[str, Any]], contents: list[bytes]) -> None:
    first: dict[str, int] = {}
    for row, content in zip(rows, contents, strict=True):
        before = first.setdefault(hashlib.sha256(content).hexdigest(), row["episode_index"])
        if before != row["episode_index"]:
            found.warnings.append(f"episode {row['episode_index']} has the same states and actions as episode {before}")
