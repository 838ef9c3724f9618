"""WorldSpec of recordings that have none: names and rate as recorded, units "as recorded", ranges from the data.

Of every element of state and action:

    it never changes     a constant c: the range is [c - 1, c + 1], so an action is always 0
    it has two values    a switch, e.g. a gripper: these two values, exactly, however rare one is
    otherwise            the smallest 1 % and the largest 99 % quantile of any episode, widened by MARGIN of their
                         distance on both sides and rounded outwards. An outlier of a few frames does not count, a
                         motion of a few episodes does.

Actions are converted so that the range becomes [-1, 1]; values beyond it are clipped. States keep their values.

Shape letters: R rows of all episodes, D vector elements, E episodes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError
from envs.types import CameraSpec, VectorSpec, WorldSpec
from rollout.dataset.foreign.features import CameraFeature, Features
from rollout.dataset.foreign.reading import ReadingConfig
from vla_model.inputs.conversion import Conversion

MARGIN = 0.1
"""How far a range is widened to each side, as a share of it."""
_QUANTILES = (0.01, 0.99)
_DIGITS = 3
"""Significant digits of a range's width to which its bounds are rounded."""
_OTHER_UNIT = 10.0
"""Ratio of two datasets' ranges from which they are taken for different units."""
DEFAULT_SIDE_PX = 128
"""Frames that are larger are resized to this."""


@dataclass(frozen=True, kw_only=True)
class Recordings:
    """The state and action of all episodes of a dataset, as recorded."""

    root: Path
    info: Mapping[str, Any]
    features: Features
    state: NDArray[Any]
    """[R, D]"""
    action: NDArray[Any]
    """[R, D]"""
    lengths: Sequence[int]
    """Of the episodes."""


def infer_world(recordings: Sequence[Recordings], reading: ReadingConfig) -> tuple[WorldSpec, Conversion]:
    """The spec and conversion of a policy of these recordings, whose vectors have the same names.

    Raises:
        UserError: a camera to rename does not exist, or the datasets are in different units.
    """
    first = recordings[0]
    cameras = camera_names([r.features for r in recordings], reading.renamed())
    state, action = (_ranges(recordings, name) for name in ("state", "action"))
    size = reading.size()
    low, high = action.T.tolist()
    conversion = Conversion(action_low=tuple(low), action_high=tuple(high), fit=reading.fit, cameras=cameras)
    units = tuple(f"{a:g} at -1, {b:g} at 1" for a, b in action.tolist())
    count = len(units)
    world = WorldSpec(
        cameras=tuple(_camera_spec(conversion, camera, size) for camera in first.features.cameras),
        state=VectorSpec(
            names=first.features.state,
            units=("as recorded",) * len(state),
            low=tuple(state[:, 0].tolist()),
            high=tuple(state[:, 1].tolist()),
        ),
        action=VectorSpec(
            names=first.features.action,
            units=units,
            low=(-1.0,) * count,
            high=(1.0,) * count,
            grippers=tuple(np.flatnonzero(is_switch(recordings)).tolist()),
        ),
        localization=VectorSpec(names=(), units=(), low=(), high=()),
        control_dt_s=1.0 / first.info["fps"],
    )
    return world, conversion


def check_units(recordings: Recordings, world_spec: WorldSpec, conversion: Conversion, whose: str) -> None:
    """Compare the numbers of a recording with the ranges of a policy of other recordings.

    Args:
        recordings: with the names of the policy's world.
        world_spec: the policy's.
        conversion: the policy's.
        whose: name of what the ranges are of, for the message.

    Raises:
        UserError: they are in different units.
    """
    ranges = {
        "state": (world_spec.state.low, world_spec.state.high),
        "action": (conversion.action_low, conversion.action_high),
    }
    for name, bounds in ranges.items():
        _check_same_units(recordings, name, _extent(recordings, name), np.array(bounds, np.float64).T, whose)


def camera_names(features: Sequence[Features], renamed: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Conversion.cameras: (camera, its new name).

    Raises:
        UserError: a camera to rename is in none of the datasets, or two cameras of one would have the same name.
    """
    known = {name: camera.name for of in features for camera in of.cameras for name in (camera.key, camera.name)}
    if wrong := [camera for camera in renamed if camera not in known]:
        raise UserError(
            f"cameras: {wrong[0]!r} does not exist; cameras: "
            f"{', '.join(dict.fromkeys(camera.key for of in features for camera in of.cameras))}"
        )
    new = {known[camera]: name for camera, name in renamed.items()}
    for of in features:
        names = [new.get(camera.name, camera.name) for camera in of.cameras]
        if twice := [name for name in names if names.count(name) > 1]:
            raise UserError(f"cameras: two cameras of a dataset would be {twice[0]!r}: {', '.join(names)}")
    return tuple(new.items())


def is_switch(recordings: Sequence[Recordings]) -> NDArray[np.bool_]:
    """Which elements of the action have exactly two values, [D]."""
    values = np.concatenate([r.action for r in recordings])
    return np.array([len(np.unique(column)) == 2 for column in values.T])


def _camera_spec(conversion: Conversion, camera: CameraFeature, size: tuple[int, int] | None) -> CameraSpec:
    small = [min(side, DEFAULT_SIDE_PX) // 2 * 2 or 2 for side in (camera.height, camera.width)]
    height, width = size or small
    return CameraSpec(name=conversion.camera_name(camera.name), height=height, width=width)


def _ranges(recordings: Sequence[Recordings], name: str) -> NDArray[np.float64]:
    """Low and high of every element, [D, 2].

    Raises:
        UserError: the datasets are in different units.
    """
    extents = [_extent(r, name) for r in recordings]  # of [D, 2]
    first = recordings[0]
    for other, extent in zip(recordings[1:], extents[1:], strict=True):
        _check_same_units(other, name, extent, extents[0], str(first.root))
    values = np.concatenate([np.asarray(getattr(r, name), np.float64) for r in recordings])
    low, high = (np.stack([e[:, i] for e in extents]) for i in (0, 1))
    together = np.stack([low.min(0), high.max(0)], axis=1)
    return np.array([_range(column, extent) for column, extent in zip(values.T, together, strict=True)]).reshape(-1, 2)


def _extent(recordings: Recordings, name: str) -> NDArray[np.float64]:
    """The smallest low and the largest high quantile of the state or the action in any episode, [D, 2]."""
    values = np.asarray(getattr(recordings, name), np.float64)
    ends = np.cumsum([0, *recordings.lengths])
    found = np.array([np.quantile(values[a:b], _QUANTILES, axis=0) for a, b in pairwise(ends) if b > a])  # [E, 2, D]
    return np.stack([found[:, 0].min(0), found[:, 1].max(0)], axis=1)


def _range(column: NDArray[np.float64], extent: NDArray[np.float64]) -> tuple[float, float]:
    distinct = np.unique(column)
    least, most = float(distinct[0]), float(distinct[-1])
    if len(distinct) == 1:
        return least - 1.0, least + 1.0
    if len(distinct) == 2:
        return least, most
    low, high = extent.tolist()
    if low == high:  # it moves in less than 1 % of every episode
        low, high = least, most
    margin = MARGIN * (high - low)
    places = _DIGITS - 1 - math.floor(math.log10(high - low))
    step = 10.0**-places
    first, last = math.floor((low - margin) / step), math.ceil((high + margin) / step)
    return round(first * step, places), round(last * step, places)


def _check_same_units(
    recordings: Recordings, name: str, extent: NDArray[np.float64], other: NDArray[np.float64], whose: str
) -> None:
    """Compare the extents, [D, 2], of a dataset's state or action with others.

    Raises:
        UserError: of most elements that move, one is many times the other.
    """
    theirs, ours = np.ptp(extent, axis=1), np.ptp(other, axis=1)
    moves = (ours > 0) & (theirs > 0)
    ratio = np.where(moves, np.maximum(ours, theirs) / np.where(moves, np.minimum(ours, theirs), 1.0), 1.0)
    far = np.flatnonzero(ratio >= _OTHER_UNIT).tolist()
    if 2 * len(far) > moves.sum():
        names = getattr(recordings.features, name)
        lines = [
            f"{name} {names[i]}: {extent[i, 0]:.4g} to {extent[i, 1]:.4g}, there {other[i, 0]:.4g} to {other[i, 1]:.4g}"
            for i in far
        ]
        raise UserError(
            f"{recordings.root} seems to be in other units than {whose}:\n  "
            + "\n  ".join(lines)
            + "\nconvert it, or leave it out"
        )
