"""Adapter: a world's observations as a foreign server expects them, and its answers as the world's actions.

An answer's columns become an action in this order: the rotation is replaced by a rotation vector, columns are chosen,
grippers are thresholded and turned, and the other dimensions are multiplied and shifted.

Shape letters: K chunk size, D columns of an answer, A action dims, S state dims, H x W pixels.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from agent.serve.foreign.config import AdapterConfig
from agent.serve.foreign.rotations import SIZES, check_convention, convert
from envs.arrays import to_numpy
from envs.errors import UserError
from envs.types import Observation, VectorSpec, WorldSpec

_CAMERA = re.compile(r"(?P<key>[^=]+)=(?P<camera>[^:]+)(:(?P<height>[1-9]\d*)x(?P<width>[1-9]\d*))?")
_NESTED = re.compile(r"(?P<map>[^\[\]]+)\[(?P<name>[^\[\]]+)\]")
_MAX_SIDE = 4096


class Adapter:
    """Adapts one world to one server."""

    def __init__(self, config: AdapterConfig, world_spec: WorldSpec, n_action_steps: int | None = None) -> None:
        """
        Args:
            config: what the server calls things.
            n_action_steps: an answer is cut to this many actions, and must have them; None for all of it.

        Raises:
            UserError: the config names a camera, a state or a rotation that does not exist, or does not fit the action.
        """
        config = config.resolved()
        self._frames = [frame for text in config.cameras for frame in _frames(text, world_spec)]
        self._states = [_state(text, world_spec.state) for text in config.state]
        self._chw = config.layout == "chw"
        self._prompt = str(config.prompt)
        self._n_action_steps = n_action_steps
        action = world_spec.action
        self._action = action
        self._rotation = None if config.rotation is None else _rotation(config.rotation)
        if config.columns and len(config.columns) != action.size:
            raise UserError(
                f"--adapter.columns has {len(config.columns)} columns, expected one for each dimension of the action: "
                f"{', '.join(action.names)}"
            )
        self._columns = list(config.columns)
        self._scale = _each("scale", config.scale, action, 1.0)
        self._offset = _each("offset", config.offset, action, 0.0)
        self._threshold = config.gripper_threshold
        self._gripper_sign = -1.0 if config.gripper_opens else 1.0

    def request(self, observation: Observation, row: int, instruction: str) -> dict[str, Any]:
        """The server's observation of one row: frames uint8 [H, W, 3] or [3, H, W], states float32, the instruction."""
        request: dict[str, Any] = {}
        for frame in self._frames:
            pixels = resized_with_pad(to_numpy(observation["frames"][frame.camera])[row], frame.height, frame.width)
            _put(request, frame.key, np.ascontiguousarray(pixels.transpose(2, 0, 1)) if self._chw else pixels)
        state = to_numpy(observation["state"])[row]
        for key, read in self._states:
            _put(request, key, read(state))
        _put(request, self._prompt, instruction)
        return request

    def actions(self, answer: NDArray[np.float32]) -> NDArray[np.float32]:
        """The world's actions [K, A] of an answer [K, D].

        Raises:
            UserError: the answer has too few actions or columns, or not as many as the action has dimensions.
        """
        if self._n_action_steps is not None:
            if len(answer) < self._n_action_steps:
                raise UserError(
                    f"the answer has {len(answer)} actions, and {self._n_action_steps} are to be executed of each"
                )
            answer = answer[: self._n_action_steps]
        if self._rotation is not None:
            answer = self._rotation.replaced(answer)
        columns = self._columns or list(range(self._action.size))
        enough = answer.shape[1] > max(columns) if self._columns else answer.shape[1] == self._action.size
        if not enough:
            raise UserError(
                f"the answer has {answer.shape[1]} columns; the world's action has {self._action.size}: "
                f"{', '.join(self._action.names)} (--adapter.columns)"
            )
        chosen = answer[:, columns]
        actions = chosen * self._scale + self._offset
        grippers = list(self._action.grippers)
        if self._threshold is not None:
            actions[:, grippers] = np.where(chosen[:, grippers] > self._threshold, 1.0, -1.0)
        actions[:, grippers] *= self._gripper_sign
        return actions.astype(np.float32)


def resized_with_pad(frame: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """The frame [H, W, 3] scaled to fit into [height, width, 3], centred on black, as openpi's clients do."""
    if frame.shape[:2] == (height, width):
        return frame
    ratio = max(frame.shape[1] / width, frame.shape[0] / height)
    size = int(frame.shape[1] / ratio), int(frame.shape[0] / ratio)
    scaled = np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR))
    padded = np.zeros((height, width, 3), np.uint8)
    top, left = (height - scaled.shape[0]) // 2, (width - scaled.shape[1]) // 2
    padded[top : top + scaled.shape[0], left : left + scaled.shape[1]] = scaled
    return padded


@dataclass(frozen=True)
class _Frame:
    """One entry of the request."""

    key: str
    camera: str
    height: int
    width: int


@dataclass(frozen=True)
class _AnsweredRotation:
    """Where a rotation is in the answers, and how it is written."""

    column: int
    convention: str

    def replaced(self, answer: NDArray[np.float32]) -> NDArray[np.float32]:
        """With a rotation vector in its place."""
        first, last = self.column, self.column + SIZES[self.convention]
        if answer.shape[1] < last:
            raise UserError(f"the answer has {answer.shape[1]} columns, its rotation is in {first}..{last - 1}")
        vectors = convert(answer[:, first:last], self.convention, "axis_angle")
        return np.concatenate([answer[:, :first], vectors, answer[:, last:]], axis=1)


def _frames(text: str, world_spec: WorldSpec) -> list[_Frame]:
    """Of KEY=CAMERA[:HxW], or of a key with * for the name of every camera."""
    if "*" in text and "=" not in text:
        return [_Frame(text.replace("*", c.name), c.name, c.height, c.width) for c in world_spec.cameras]
    found = _CAMERA.fullmatch(text)
    if found is None:
        raise UserError(f"--adapter.cameras {text!r} is not KEY=CAMERA or KEY=CAMERA:HEIGHTxWIDTH")
    cameras = {camera.name: camera for camera in world_spec.cameras}
    if found["camera"] not in cameras:
        raise UserError(
            f"{found['key']} is to show the camera {found['camera']!r}, and the world has {', '.join(cameras)}; "
            f"name one: --adapter.cameras {found['key']}={next(iter(cameras))}:224x224"
        )
    camera = cameras[found["camera"]]
    height, width = int(found["height"] or camera.height), int(found["width"] or camera.width)
    if max(height, width) > _MAX_SIDE:
        raise UserError(f"--adapter.cameras {text!r}: a frame has at most {_MAX_SIDE} pixels a side")
    return [_Frame(found["key"], camera.name, height, width)]


def _state(text: str, spec: VectorSpec) -> tuple[str, Callable[[NDArray[np.float32]], NDArray[np.float32]]]:
    """Key and reader of KEY or KEY=PART,PART,..."""
    key, equals, parts = text.partition("=")
    if not key or (equals and not parts):
        raise UserError(f"--adapter.state {text!r} is not KEY or KEY=PART,PART,...")
    if not equals:
        return key, lambda state: state
    readers = [_part(part, spec) for part in parts.split(",")]
    return key, lambda state: np.concatenate([read(state) for read in readers]).astype(np.float32)


def _part(text: str, spec: VectorSpec) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """Reader of NAME, INDEX, FIRST..LAST or FIRST..LAST@FROM:TO."""
    span, at, conventions = text.partition("@")
    first, dots, last = span.partition("..")
    start = _index(first, spec)
    stop = _index(last, spec) + 1 if dots else start + 1
    if stop <= start:
        raise UserError(f"--adapter.state: {span} ends before it begins")
    if not at:
        return lambda state: state[start:stop]
    source, _, target = conventions.partition(":")
    size = SIZES[check_convention(source)]
    check_convention(target)
    if stop - start != size:
        raise UserError(f"--adapter.state: {span} has {stop - start} numbers, and a rotation as {source} {size}")
    return lambda state: convert(state[None, start:stop], source, target)[0]


def _index(name: str, spec: VectorSpec) -> int:
    if name in spec.names:
        return spec.names.index(name)
    if name.isdecimal() and int(name) < spec.size:
        return int(name)
    raise UserError(
        f"--adapter.state: {name!r} is neither a name nor an index of the world's state of {spec.size} numbers: "
        f"{', '.join(spec.names)}"
    )


def _rotation(text: str) -> _AnsweredRotation:
    column, colon, convention = text.partition(":")
    if not colon or not column.isdecimal():
        raise UserError(f"--adapter.rotation {text!r} is not COLUMN:CONVENTION; conventions: {', '.join(SIZES)}")
    return _AnsweredRotation(int(column), check_convention(convention))


def _each(name: str, values: Sequence[float], action: VectorSpec, default: float) -> NDArray[np.float32]:
    """One value for each dimension, [A]."""
    if len(values) <= 1:
        given = values[0] if values else default
        return np.where(action.is_gripper, default, given).astype(np.float32)
    if len(values) != action.size:
        raise UserError(
            f"--adapter.{name} has {len(values)} values, expected one, or one for each dimension of the action: "
            f"{', '.join(action.names)}"
        )
    return np.array(values, np.float32)


def _put(request: dict[str, Any], key: str, value: object) -> None:
    """Set an entry; KEY[NAME] is one of a map."""
    nested = _NESTED.fullmatch(key)
    if nested is None:
        request[key] = value
    else:
        request.setdefault(nested["map"], {})[nested["name"]] = value
