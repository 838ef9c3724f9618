"""Checks before anything is decoded: that datasets are of the same world, and that their numbers are valid targets.

Shape letters: R rows of all episodes, D vector elements.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError
from envs.types import WorldSpec
from rollout.dataset import schema
from rollout.dataset.foreign.features import Features, features_of, names_of
from rollout.dataset.foreign.infer import Recordings, check_units, infer_world
from rollout.dataset.foreign.outcomes import unused_episodes
from rollout.dataset.foreign.reading import ReadingConfig
from rollout.dataset.read import read_episodes, read_info, read_tasks, read_vectors
from vla_model.inputs.conversion import Conversion

_TIMES = ("frame_index", "timestamp")
TASK = "task_index"
LEAVE_OUT = "leave such episodes out (--without-episodes; `llamarm data` lists them)"
"""Remedy for episodes that cannot be trained on."""
_LATE = 0.5
"""How far a frame may be from its time, in periods."""
_ROUNDING = 1e-6
"""How far outside [-1, 1] an action may lie: the last bits of a float32."""


def check_worlds(
    roots: Sequence[str | Path],
    others: Sequence[str | Path] = (),
    *,
    expected: WorldSpec | None = None,
    conversion: Conversion | None = None,
    reading: ReadingConfig | None = None,
) -> tuple[WorldSpec, Conversion | None]:
    """The world in which all these datasets were recorded, and the conversion of recordings of other programs.

    Args:
        roots: folders of datasets, at least one; where the first has no WorldSpec, it is inferred from them.
        others: folders of further datasets.
        expected: the policy's; None for that of `roots`.
        conversion: the policy's.
        reading: how recordings of other programs are read.

    Raises:
        UserError: a folder is given twice, holds no dataset, or one without units, with contradictions, or of another
            world; the message lists every difference. Or an episode to leave out does not exist.
    """
    reading = reading or ReadingConfig()
    reading.check_left_out((*roots, *others))
    places = Counter(Path(root).resolve() for root in (*roots, *others))
    if twice := [str(place) for place, count in places.items() if count > 1]:
        raise UserError(f"{twice[0]} is named twice, so its rows would count twice; name it once")
    infos = [(Path(root), read_info(Path(root))) for root in (*roots, *others)]
    first, one = infos[0]
    world_spec, compared = expected, infos
    if world_spec is None and schema.is_own(one):
        world_spec = _world_spec(first, one)
        if not reading.is_default:
            raise UserError(
                f"{first} has a WorldSpec with its own frames and cameras: leave out --frames, --fit and --cameras"
            )
    elif world_spec is None:
        world_spec, conversion = _inferred(infos[: len(roots)], reading)
        compared = infos[len(roots) :]
    whose = f"that of {first}" if expected is None else "the policy's"
    for root, info in infos:
        if lines := _differences(root, info, world_spec, conversion, one):
            lines += _hints(root, info, conversion) if expected is None else []
            raise UserError(f"{root} is of another kind: its world differs from {whose}:\n  " + "\n  ".join(lines))
        if schema.is_own(info) and (lines := schema.contradictions(info, _world_spec(root, info))):
            raise UserError(f"{root / schema.INFO_PATH} contradicts its own world_spec: {'; '.join(lines)}")
    for root, info in compared:
        if conversion is not None and not schema.is_own(info):
            check_units(_recordings(root, info, reading), world_spec, conversion, whose)
    return world_spec, conversion


def _differences(
    root: Path, info: dict[str, Any], world_spec: WorldSpec, conversion: Conversion | None, one: dict[str, Any]
) -> list[str]:
    if not schema.is_own(info) and conversion is None:
        lacking = "it is a recording of another program, without a WorldSpec, so its units and ranges are unknown"
        return [f"{lacking}; a policy of such recordings alone is trained with --data"]
    if conversion is None or schema.is_own(info):
        lines = world_spec.differences(_world_spec(root, info))
        return lines or (schema.differences(schema.kind(one), schema.kind(info)) if schema.is_own(one) else [])
    return recorded_differences(features_of(info, str(root)), info["fps"], world_spec, conversion)


def _hints(root: Path, info: dict[str, Any], conversion: Conversion | None) -> list[str]:
    """Drives of a policy of recordings have the size of its frames, which --frames gives the recordings too."""
    if conversion is None or not schema.is_own(info):
        return []
    sizes = {f"{camera.width}x{camera.height}" for camera in _world_spec(root, info).cameras}
    return [f"(--frames {sizes.pop()} reads the recordings at its size)"] if len(sizes) == 1 else []


def recorded_differences(features: Features, fps: float, world_spec: WorldSpec, conversion: Conversion) -> list[str]:
    """How a recording of another program differs from a policy's world, one line each; it has no units."""
    cameras = [conversion.camera_name(camera.name) for camera in features.cameras]
    lines = [
        f"camera {camera.name!r} is missing; cameras: {', '.join(cameras)} (--cameras {camera.name}=... renames one)"
        for camera in world_spec.cameras
        if camera.name not in cameras
    ]
    for name, theirs in (("state", features.state), ("action", features.action)):
        if theirs != (ours := getattr(world_spec, name).names):
            lines.append(f"{name} names are {theirs}, expected {ours}")
    if not math.isclose(fps * world_spec.control_dt_s, 1.0, rel_tol=1e-6):
        lines.append(f"fps is {fps:g}, expected {1 / world_spec.control_dt_s:g}")
    return lines


def _inferred(infos: Sequence[tuple[Path, dict[str, Any]]], reading: ReadingConfig) -> tuple[WorldSpec, Conversion]:
    """The inferred world of recordings; those with a WorldSpec are only compared."""
    inferred = [(root, info) for root, info in infos if not schema.is_own(info)]
    read: list[Recordings] = []
    for root, info in inferred:
        features = features_of(info, str(root))
        if read and (lines := _unlike(read[0], features)):
            raise UserError(f"{root} is of another kind: it differs from {read[0].root}:\n  " + "\n  ".join(lines))
        read.append(_recordings(root, info, reading))
    return infer_world(read, reading)


def _recordings(root: Path, info: dict[str, Any], reading: ReadingConfig) -> Recordings:
    """Of all episodes that are not left out."""
    without = unused_episodes(root, reading)
    rows = [row for row in read_episodes(root, without) if row["length"]]
    if not rows:
        raise UserError(f"{root} has no episodes " + ("but those left out" if without else "yet"))
    return recordings_of(root, info, rows)


def _unlike(one: Recordings, features: Features) -> list[str]:
    """Differences without which ranges cannot be compared."""
    pairs = ((name, getattr(one.features, name), getattr(features, name)) for name in ("state", "action"))
    return [f"{name} names are {theirs}, expected {ours}" for name, ours, theirs in pairs if ours != theirs]


def recordings_of(root: Path, info: dict[str, Any], rows: Sequence[dict[str, Any]]) -> Recordings:
    """State and action of these episodes of a recording of another program.

    Raises:
        UserError: numbers are missing or not finite, frames are missing, or come twice; the message says where.
    """
    features = features_of(info, str(root))
    keys = [key for key in (features.state_key, features.action_key) if key is not None]
    vectors = read_vectors(root, info, rows, [*keys, *_TIMES, TASK])
    lengths = [row["length"] for row in rows]
    check_numbers(str(root), info, {key: vectors[key] for key in keys}, cloned=False, episodes=rows)
    check_times(root, info["fps"], vectors, rows)
    if TASK in vectors:
        check_tasks(root, read_tasks(root), vectors[TASK].ravel(), rows)
    return Recordings(
        root=root,
        info=info,
        features=features,
        state=vectors.get(features.state_key or "", np.zeros((sum(lengths), 0))),
        action=vectors[features.action_key],
        lengths=lengths,
    )


def check_tasks(root: Path, tasks: Mapping[int, str], index: NDArray[Any], rows: Sequence[Mapping[str, Any]]) -> None:
    """Check that every frame has an instruction, one of its episode's.

    Args:
        root: of the dataset.
        tasks: {task_index: instruction}.
        index: task_index of every frame, [R].
        rows: the episodes, R frames in all.

    Raises:
        UserError: a task is not defined, its instruction is blank, or the episode is listed with others; the message
            says where.
    """
    ends = np.cumsum([row["length"] for row in rows])
    for row, own in zip(rows, np.split(index, ends[:-1]), strict=True):
        for number in np.unique(own).tolist() if tasks else ():
            text, where = tasks.get(number), f"episode {row['episode_index']} of {root} has frames of task {number}"
            if text is None or not text.strip():
                what = "does not have" if text is None else "gives no instruction"
                raise UserError(f"{where}, which meta/tasks {what}; tasks: {', '.join(map(repr, tasks.values()))}")
            if text not in row["tasks"]:
                raise UserError(f"{where}, {text!r}, but is listed in meta/episodes with {row['tasks']}")


def check_times(root: Path, fps: float, vectors: Mapping[str, NDArray[Any]], rows: Sequence[Mapping[str, Any]]) -> None:
    """Check that each episode has every frame once, at a constant rate.

    Args:
        root: of the dataset.
        fps: of the dataset.
        vectors: {"frame_index", "timestamp": [R, 1]}, of which each may be missing.
        rows: the episodes, R frames in all.

    Raises:
        UserError: frames are missing, come twice, or are not at their time; the message says where.
    """
    steps = np.concatenate([np.arange(row["length"]) for row in rows])
    episodes = np.repeat([row["episode_index"] for row in rows], [row["length"] for row in rows])
    found = {name: values.ravel() for name, values in vectors.items() if name in _TIMES}
    wrong = found.get("frame_index", steps) != steps
    if wrong.any():
        first = int(wrong.argmax())
        number, step = int(found["frame_index"][first]), int(steps[first])
        what = f"has frame {number} twice" if number < step else f"lacks frame {step}: {number} is next"
        raise UserError(
            f"episode {episodes[first]} of {root} {what} (frame_index); {wrong.sum()} rows of "
            f"{len(set(episodes[wrong].tolist()))} episodes are concerned; {LEAVE_OUT}, or record them again"
        )
    late_s = np.abs(found.get("timestamp", steps / fps) - steps / fps)
    if (wrong := late_s > _LATE / fps).any():
        first = int(wrong.argmax())
        raise UserError(
            f"episode {episodes[first]} of {root} has frame {steps[first]} at {found['timestamp'][first]:.4f} s, "
            f"expected {steps[first] / fps:.4f} s at {fps:g} fps: its rows are not at a constant rate; correct fps in "
            f"meta/info.json, or {LEAVE_OUT}"
        )


def check_numbers(
    whose: str,
    info: Mapping[str, Any],
    vectors: Mapping[str, NDArray[Any]],
    *,
    cloned: bool,
    episodes: Sequence[Mapping[str, Any]] | None = None,
) -> None:
    """
    Args:
        whose: name of the dataset or the episode, for messages.
        info: info.json.
        vectors: {feature: [R, D]}.
        cloned: whether actions are training targets.
        episodes: their rows of meta/episodes, R frames in all; None for a single episode that is being written.

    Raises:
        UserError: numbers are not finite, or actions are outside [-1, 1]; the message says where.
    """
    for key, values in vectors.items():
        finite = np.isfinite(values)
        if not finite.all():
            row, column = np.argwhere(~finite)[0].tolist()
            raise UserError(
                f"{key} of {whose} has numbers that are not finite in {(~finite).any(1).sum()} of {len(values)} rows; "
                f"the first is {values[row, column]} in {_name(info, key, column)}, {_where(episodes, row)}; "
                + (f"{LEAVE_OUT}, or record them again" if episodes is not None else "record it again")
            )
    # An arm moved by hand beyond the command range is held and brought back by commands above 1 (docs/driving.md).
    of_drives = schema.HELD in info["features"]
    for key in (schema.ACTION, schema.EXECUTED) if cloned else ():
        if key in vectors and not (of_drives and key == schema.EXECUTED):
            _check_range(whose, key, info, np.abs(vectors[key]), episodes)


def _check_range(
    whose: str, key: str, info: Mapping[str, Any], size: NDArray[Any], episodes: Sequence[Mapping[str, Any]] | None
) -> None:
    beyond = size > 1.0 + _ROUNDING  # [R, D]
    if not beyond.any():
        return
    found = []
    for column in np.flatnonzero(beyond.any(0)).tolist():
        row = int(size[:, column].argmax())
        name, share = _name(info, key, column), beyond[:, column].mean()
        found.append(f"{name} in {share:.2%} of rows, up to {size[row, column]:.4g} in {_where(episodes, row)}")
    raise UserError(
        f"{key} of {whose} is outside [-1, 1], the range of a policy's actions: {'; '.join(found)}; record actions in "
        "a unit in which 1 is the robot's largest command"
    )


def _world_spec(root: Path, info: dict[str, Any]) -> WorldSpec:
    try:
        return schema.read_world_spec(info)
    except UserError as error:
        raise UserError(f"{root}: {error}") from error


def _name(info: Mapping[str, Any], key: str, column: int) -> str:
    feature = info["features"][key]
    return repr(names_of("", key, feature)[column] if feature.get("names") else column)


def _where(episodes: Sequence[Mapping[str, Any]] | None, row: int) -> str:
    if episodes is None:
        return f"frame {row}"
    ends = np.cumsum([episode["length"] for episode in episodes])
    place = int(np.searchsorted(ends, row, side="right"))
    episode = episodes[place]
    return f"episode {episode['episode_index']}, frame {row - int(ends[place]) + episode['length']}"
