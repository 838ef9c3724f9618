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
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from annotated_types import Interval
from numpy.typing import NDArray

from envs.errors import UserError
from envs.types import CameraSpec, VectorSpec, WorldSpec
from rollout.dataset.foreign.features import CameraFeature, Features
from vla_model.inputs.conversion import Conversion
from vla_model.inputs.fit import Fit

MARGIN = 0.1
"""How far a range is widened to each side, as a share of it."""
_QUANTILES = (0.01, 0.99)
_DIGITS = 3
"""Significant digits of a range's width to which its bounds are rounded."""
_OTHER_UNIT = 10.0
"""Ratio of two datasets' ranges from which they are taken for different units."""
DEFAULT_HELD_OUT = 0.1
"""Share of the episodes of recordings of other programs."""
DEFAULT_SIDE_PX = 128
"""Frames that are larger are resized to this."""
_MAX_SIDE_PX = 4096


@dataclass(frozen=True, kw_only=True)
class ReadingConfig:
    """How recordings of other programs are read: their frames, and the episodes kept for measuring the error."""

    frames: Annotated[str, tyro.conf.arg(metavar="WIDTHxHEIGHT")] = ""
    """Size of the frames that the policy sees, even numbers; by default at most 128x128."""
    fit: Fit = "stretch"
    """Whether a frame of another aspect ratio is stretched, or gets black borders."""
    cameras: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=CAMERA ...")] = ()
    """New names of cameras, e.g. front=observation.images.top."""
    held_out: Annotated[float | None, Interval(ge=0, le=0.9)] = None
    """Share of the episodes that is not trained on, to measure the action error; by default 0.1 for recordings of
    other programs, else 0."""

    def check(self) -> None:
        """
        Raises:
            UserError: frames or cameras are malformed.
        """
        self.size()
        self.renamed()

    @property
    def is_default(self) -> bool:
        """Whether nothing is asked of the frames."""
        return (self.frames, self.fit, self.cameras) == ("", "stretch", ())

    def size(self) -> tuple[int, int] | None:
        """Height and width of the frames; None if not given."""
        if not self.frames:
            return None
        found = re.fullmatch(r"(\d{1,6})x(\d{1,6})", self.frames)
        width, height = map(int, found.groups()) if found else (0, 0)
        if any(side % 2 or not 2 <= side <= _MAX_SIDE_PX for side in (width, height)):
            raise UserError(
                f"frames is {self.frames!r}, expected WIDTHxHEIGHT, even and at most {_MAX_SIDE_PX}, e.g. 128x128"
            )
        return height, width

    def renamed(self) -> dict[str, str]:
        """The new names of cameras, by feature or name."""
        pairs = [entry.partition("=") for entry in self.cameras]
        for entry, (name, _, camera) in zip(self.cameras, pairs, strict=True):
            if not re.fullmatch(r"\w+", name) or not camera:
                raise UserError(f"cameras has {entry!r}, expected NAME=CAMERA, e.g. front=observation.images.top")
        if len({camera for *_, camera in pairs}) < len(pairs):
            raise UserError(f"cameras names a camera twice: {' '.join(self.cameras)}")
        return {camera: name for name, _, camera in pairs}


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
    vectors = [np.asarray(getattr(r, name), np.float64) for r in recordings]
    extents = [_extent(values, r.lengths) for values, r in zip(vectors, recordings, strict=True)]  # of [D, 2]
    _check_units(recordings, name, extents)
    values = np.concatenate(vectors)
    low, high = (np.stack([e[:, i] for e in extents]) for i in (0, 1))
    together = np.stack([low.min(0), high.max(0)], axis=1)
    return np.array([_range(column, extent) for column, extent in zip(values.T, together, strict=True)]).reshape(-1, 2)


def _extent(values: NDArray[np.float64], lengths: Sequence[int]) -> NDArray[np.float64]:
    """The smallest low and the largest high quantile of any episode, [D, 2]."""
    ends = np.cumsum([0, *lengths])
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


def _check_units(recordings: Sequence[Recordings], name: str, extents: Sequence[NDArray[np.float64]]) -> None:
    """
    Raises:
        UserError: in most elements that move, the range of a dataset is many times that of the first.
    """
    names, one = getattr(recordings[0].features, name), extents[0]
    for other, extent in zip(recordings[1:], extents[1:], strict=True):
        mine, theirs = np.ptp(one, axis=1), np.ptp(extent, axis=1)
        moves = (mine > 0) & (theirs > 0)
        ratio = np.where(moves, np.maximum(mine, theirs) / np.where(moves, np.minimum(mine, theirs), 1.0), 1.0)
        far = np.flatnonzero(ratio >= _OTHER_UNIT).tolist()
        if 2 * len(far) > moves.sum():
            lines = [
                f"{name} {names[i]}: {extent[i, 0]:.4g} to {extent[i, 1]:.4g}, here {one[i, 0]:.4g} to {one[i, 1]:.4g}"
                for i in far
            ]
            raise UserError(
                f"{other.root} seems to be in other units than {recordings[0].root}:\n  " + "\n  ".join(lines)
            )
