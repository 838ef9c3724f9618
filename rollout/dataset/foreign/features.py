"""Features of info.json -> what a policy can use of a dataset: cameras, state and action, by whoever wrote it.

Names and shapes differ between programs: a camera is any feature of dtype image or video, its shape in the order of its
names; the names of a vector's elements are a list, a nested map or missing.

Shape letters: D vector elements.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from envs.errors import UserError
from rollout.dataset import schema

_PREFIXES = (schema.IMAGE_PREFIX, "observation.", "images.")
_STATES = (schema.STATE, "state")
_ACTIONS = (schema.ACTION, "actions")
"""LeRobot's names, and those of openpi's own datasets."""


@dataclass(frozen=True, kw_only=True)
class CameraFeature:
    """A camera as recorded."""

    key: str
    """Of its feature."""
    name: str
    """Its key without LeRobot's prefix."""
    height: int
    width: int


@dataclass(frozen=True, kw_only=True)
class Features:
    """The features of a dataset that a policy can use."""

    cameras: tuple[CameraFeature, ...]
    state_key: str | None
    """None if there is no state."""
    state: tuple[str, ...]
    """Names of its elements."""
    action_key: str
    action: tuple[str, ...]
    left_out: tuple[str, ...]
    """Messages: what of the observation and action is not used, and why."""


def features_of(info: Mapping[str, Any], where: str) -> Features:
    """
    Args:
        info: info.json.
        where: name of the dataset, for messages.

    Raises:
        UserError: there is no camera or no action, or one has an unusable shape.
    """
    features = info["features"]
    pictures = {key: feature for key, feature in features.items() if feature["dtype"] in ("image", "video")}
    depth = [key for key, feature in pictures.items() if _is_depth(feature)]
    cameras = tuple(_camera(where, key, feature) for key, feature in pictures.items() if key not in depth)
    if not cameras:
        raise UserError(f"{where} has no camera: a feature of dtype image or video; features: {', '.join(features)}")
    if twice := [camera.key for camera in cameras if [c.name for c in cameras].count(camera.name) > 1]:
        raise UserError(f"{where}: the cameras {' and '.join(twice)} have the same name; rename one in meta/info.json")
    state, action = (next((k for k in keys if k in features), None) for keys in (_STATES, _ACTIONS))
    if action is None:
        raise UserError(f"{where} has no feature {' or '.join(_ACTIONS)}; features: {', '.join(features)}")
    others = [k for k in features if k.startswith(("observation", "action")) and k not in (*pictures, state, action)]
    return Features(
        cameras=cameras,
        state_key=state,
        state=() if state is None else names_of(where, state, features[state]),
        action_key=action,
        action=names_of(where, action, features[action]),
        left_out=(
            *(f"{key}: a depth camera" for key in depth),
            *(f"{key}: not part of {_STATES[0]} or {_ACTIONS[0]}" for key in others),
        ),
    )


def _is_depth(feature: Mapping[str, Any]) -> bool:
    about = {**(feature.get("info") or {}), **(feature.get("video_info") or {})}
    return bool(about.get("is_depth_map") or about.get("video.is_depth_map")) or 1 in _sides(feature)[2:]


def _sides(feature: Mapping[str, Any]) -> tuple[int, ...]:
    """Height, width, channels: in this order unless the names say otherwise."""
    shape, names = feature["shape"], feature.get("names")
    if isinstance(names, list) and len(names) == len(shape) and {"height", "width"} <= set(names):
        order = {name: shape[i] for i, name in enumerate(names)}
        others = [order[name] for name in names if name not in ("height", "width")]
        return order["height"], order["width"], *others
    if len(shape) == 3 and shape[0] in (1, 3) and shape[2] not in (1, 3):
        return *shape[1:], shape[0]
    return tuple(shape)


def _camera(where: str, key: str, feature: Mapping[str, Any]) -> CameraFeature:
    sides = _sides(feature)
    if len(sides) != 3 or sides[2] != 3 or not all(type(side) is int and side > 0 for side in sides):
        raise UserError(f"{where}: camera {key} has shape {feature['shape']}, expected [height, width, 3]")
    return CameraFeature(key=key, name=name_of_camera(key), height=sides[0], width=sides[1])


def name_of_camera(key: str) -> str:
    """A camera's name from its feature's key.

    Examples:
        >>> name_of_camera("observation.images.top"), name_of_camera("observation.image")
        ('top', 'image')
    """
    prefix = next((prefix for prefix in _PREFIXES if key.startswith(prefix)), "")
    return key.removeprefix(prefix).replace(".", "_")


def names_of(where: str, key: str, feature: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of a vector's elements; numbered ones where there are none.

    Raises:
        UserError: it is no vector, or has another number of names.
    """
    shape = feature["shape"]
    if len(shape) != 1 or type(shape[0]) is not int or shape[0] < 1:
        raise UserError(f"{where}: {key} has shape {shape}, expected one row of numbers per frame, [D]")
    names = tuple(_leaves(feature.get("names")))
    if len(names) == shape[0] and len(set(names)) == len(names):
        return names
    if names and len(names) != shape[0]:
        raise UserError(
            f"{where}: {key} has {shape[0]} elements and {len(names)} names: {json.dumps(feature['names'])}; correct "
            "meta/info.json, or set the names to null"
        )
    return tuple(f"{key.removeprefix('observation.')}_{i}" for i in range(shape[0]))


def _leaves(names: object) -> Iterator[str]:
    """The names in a list or a nested map of lists; of a map to numbers its keys."""
    if isinstance(names, dict):
        for name, below in names.items():
            yield from [name] if isinstance(below, int | None) else _leaves(below)
    elif isinstance(names, list):
        for name in names:
            yield from _leaves(name) if isinstance(name, list | dict) else [str(name)]
    elif isinstance(names, str):
        yield names
