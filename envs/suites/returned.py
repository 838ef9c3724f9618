"""Checks of the values that a user's environment or task returns, at every call.

Every function `..._of` returns what its first line says, and raises a WorldError that names any other value.

Shape letters: H x W pixels.
"""

from __future__ import annotations

import traceback
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.arrays import to_float32
from envs.errors import UserError

Frames = dict[str, NDArray[np.uint8]]
"""{camera: [H, W, 3]} of one environment."""


class WorldError(UserError):
    """An error of an environment or its task that ends the episode."""


class NotFiniteError(WorldError):
    """A number that is infinite or NaN."""


@contextmanager
def calling(what: str) -> Generator[None]:
    """Converts every exception raised within to a WorldError that names the call, the file and the line.

    Args:
        what: the call, e.g. "step".
    """
    try:
        yield
    except WorldError:
        raise
    except (Exception, SystemExit) as error:  # SystemExit e.g. from argparse, in a module written as a script
        place = traceback.extract_tb(error.__traceback__)[-1]
        message = " ".join(f"{type(error).__name__}: {error}".split())
        raise WorldError(f"{what} raised {message} ({Path(place.filename).name}:{place.lineno})") from error


def success_flag_of(what: str, value: Any) -> bool:
    """A bool, from a bool or an array of one element with any number of dimensions."""
    array = _numbers(what, value, "True or False, or an array of one", size=1)
    if array.item() not in (0, 1):
        raise WorldError(f"{what} must be True or False, or an array of one, got {kind_of(value)}: {_short(value)}")
    return bool(array.item())


def number_of(what: str, value: Any) -> float:
    """A finite number within the range of float32."""
    number = _numbers(what, value, "a number", size=1).item()
    if not np.isfinite(to_float32(np.asarray(number))):
        raise NotFiniteError(f"{what} is {number}, which is not a finite float32")
    return float(number)


def vector_of(what: str, value: Any, size: int | None = None) -> NDArray[np.float32]:
    """A vector of finite numbers, float32 [size]; a single number becomes a vector of size 1."""
    expected = "a vector of numbers" if size is None else f"a vector of {size}"
    array = _numbers(what, value, expected, size)
    if array.ndim > 1:
        raise WorldError(f"{what} must be {expected}, got {kind_of(value)}")
    vector = to_float32(array.reshape(-1))
    if len(bad := np.flatnonzero(~np.isfinite(vector))):
        raise NotFiniteError(
            f"element {bad[0]} of {what} is {array.reshape(-1)[bad[0]]}, which is not a finite float32"
        )
    return vector


def labels_of(value: Any, names: tuple[str, ...] | None = None) -> dict[str, float]:
    """Labels by name, in the order of `names`, where these are named."""
    if not isinstance(value, Mapping):
        raise WorldError(f"labels must be a mapping of names to numbers, got {kind_of(value)}")
    if names is not None and set(value) != set(names):
        raise WorldError(f"labels must be {', '.join(names)} in every step, got {', '.join(map(str, value))}")
    return {str(name): number_of(f"label {name!r}", value[name]) for name in (value if names is None else names)}


def frames_of(value: Any, shapes: Mapping[str, tuple[int, ...]] | None = None) -> Frames:
    """Frames by camera, uint8 [H, W, 3], copied so that the environment cannot overwrite them.

    Args:
        shapes: {camera: expected shape}, if known.
    """
    if not isinstance(value, Mapping) or not value:
        raise WorldError(
            f"frames must be {{camera: uint8 image [H, W, 3]}} of one camera or more, got {kind_of(value)}"
        )
    frames = {str(name): np.array(frame) for name, frame in value.items()}
    for name, frame in frames.items():
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or not frame.size:
            raise WorldError(f"camera {name!r} gives {frame.dtype} {frame.shape}, expected uint8 (H, W, 3)")
    found = {name: frame.shape for name, frame in frames.items()}
    if shapes is not None and found != dict(shapes):
        raise WorldError(f"the cameras gave {found}, but {dict(shapes)} when the worlds were made")
    return frames


def sentence_of(value: Any) -> str:
    """An instruction, which is not blank."""
    if not isinstance(value, str) or not value.strip():
        raise WorldError(f"the instruction must be a sentence, got {_short(value)}")
    return value


def results_of(what: str, value: Any, names: tuple[str, ...]) -> tuple[Any, ...]:
    """The return value of reset or step, checked to be a tuple with one element per name."""
    if not isinstance(value, tuple) or len(value) != len(names):
        got = f"a tuple of {len(value)}" if isinstance(value, tuple) else kind_of(value)
        raise WorldError(f"{what} must return ({', '.join(names)}), as gymnasium since 0.26 has it, got {got}")
    return value


def _numbers(what: str, value: Any, expected: str, size: int | None = None) -> NDArray[Any]:
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:
        raise WorldError(f"{what} must be {expected}, got {kind_of(value)}: {error}") from error
    is_real = np.issubdtype(array.dtype, np.bool_) or (np.isrealobj(array) and np.issubdtype(array.dtype, np.number))
    if not is_real or size not in (None, array.size):
        raise WorldError(f"{what} must be {expected}, got {kind_of(value)}: {_short(value)}")
    return array


def kind_of(value: Any) -> str:
    """Describes a value's type for a message: `an array float64 (4,)`, `a tuple of 2`."""
    if isinstance(value, np.ndarray):
        return f"an array {value.dtype} {value.shape}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return "None" if value is None else f"a {type(value).__name__}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 60 else f"{text[:57]}..."
