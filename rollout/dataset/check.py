"""Checks before anything is decoded: that datasets are of the same world, and that their numbers are valid targets.

Shape letters: R rows of all episodes, D vector elements.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError
from envs.types import WorldSpec
from rollout.dataset import schema
from rollout.dataset.read import read_info

_ROUNDING = 1e-6
"""How far outside [-1, 1] an action may lie: the last bits of a float32."""


def check_worlds(roots: Sequence[str | Path], expected: WorldSpec | None = None) -> WorldSpec:
    """The world in which all these datasets were recorded.

    Args:
        roots: folders of datasets, at least one.
        expected: the policy's; None for that of the first dataset.

    Raises:
        UserError: a folder is given twice, holds no dataset, or one without units, with contradictions, or of another
            world; the message lists every difference.
    """
    places = Counter(Path(root).resolve() for root in roots)
    if twice := [str(place) for place, count in places.items() if count > 1]:
        raise UserError(f"{twice[0]} is named twice, so its rows would count twice; name it once")
    infos = [(Path(root), read_info(Path(root))) for root in roots]
    first, one = infos[0]
    world_spec = expected or _world_spec(first, one)
    whose = f"that of {first}" if expected is None else "the policy's"
    for root, info in infos:
        lines = world_spec.differences(_world_spec(root, info)) or schema.differences(
            schema.kind(one), schema.kind(info)
        )
        if lines:
            raise UserError(f"{root} is of another kind: its world differs from {whose}:\n  " + "\n  ".join(lines))
        if lines := schema.contradictions(info, _world_spec(root, info)):
            raise UserError(f"{root / schema.INFO_PATH} contradicts its own world_spec: {'; '.join(lines)}")
    return world_spec


def check_numbers(
    whose: str,
    info: Mapping[str, Any],
    vectors: Mapping[str, NDArray[Any]],
    *,
    cloned: bool,
    lengths: Sequence[int] | None = None,
) -> None:
    """
    Args:
        whose: name of the dataset or the episode, for messages.
        info: info.json.
        vectors: {feature: [R, D]}.
        cloned: whether actions are training targets.
        lengths: of the dataset's episodes, R rows in all; None for a single episode.

    Raises:
        UserError: numbers are not finite, or actions are outside [-1, 1]; the message says where.
    """
    for key, values in vectors.items():
        finite = np.isfinite(values)
        if not finite.all():
            row, column = np.argwhere(~finite)[0].tolist()
            raise UserError(
                f"{key} of {whose} has numbers that are not finite in {(~finite).any(1).sum()} of {len(values)} rows; "
                f"the first is {values[row, column]} in {_name(info, key, column)}, {_where(lengths, row)}; leave the "
                "episode out or record it again"
            )
    # An arm moved by hand beyond the command range is held and brought back by commands above 1 (docs/driving.md).
    of_drives = schema.HELD in info["features"]
    for key in (schema.ACTION, schema.EXECUTED) if cloned else ():
        if key in vectors and not (of_drives and key == schema.EXECUTED):
            _check_range(whose, key, info, np.abs(vectors[key]), lengths)


def _check_range(
    whose: str, key: str, info: Mapping[str, Any], size: NDArray[Any], lengths: Sequence[int] | None
) -> None:
    beyond = size > 1.0 + _ROUNDING  # [R, D]
    if not beyond.any():
        return
    found = []
    for column in np.flatnonzero(beyond.any(0)).tolist():
        row = int(size[:, column].argmax())
        name, share = _name(info, key, column), beyond[:, column].mean()
        found.append(f"{name} in {share:.2%} of rows, up to {size[row, column]:.4g} in {_where(lengths, row)}")
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
    names = info["features"][key]["names"]
    return repr(names[column] if names else column)


def _where(lengths: Sequence[int] | None, row: int) -> str:
    if lengths is None:
        return f"frame {row}"
    ends = np.cumsum(lengths)
    episode = int(np.searchsorted(ends, row, side="right"))
    return f"episode {episode}, frame {row - int(ends[episode]) + lengths[episode]}"
