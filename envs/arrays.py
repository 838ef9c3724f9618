"""numpy or torch: what worlds need besides the array API standard.

A suite's mathematics is written once for both libraries, with `xp = array_namespace(x)` of array-api-compat.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.types import Array, Observation


def constant(values: Any, like: Array) -> Array:
    """Numbers (nested tuples) as an array with the dtype and device of `like`; cached, so do not modify it."""
    from array_api_compat import array_namespace  # the interpreters of envs/suites/hosted lack it

    return _constant(array_namespace(like), values, like.dtype, like.device)


@functools.lru_cache
def _constant(xp: Any, values: Any, dtype: Any, device: Any) -> Array:
    return xp.asarray(values, dtype=dtype, device=device)


def to_numpy(array: Array) -> NDArray[Any]:
    """The array on the host; a numpy array is returned unchanged."""
    return array if isinstance(array, np.ndarray) else array.cpu().numpy()


def to_float32(array: NDArray[Any]) -> NDArray[np.float32]:
    """A copy in float32; values out of range become infinite without a warning, so check the copy for finite values."""
    with np.errstate(over="ignore"):
        return array.astype(np.float32)


def on_host(observation: Observation) -> Observation:
    """The same observation in numpy."""
    frames = {camera: to_numpy(frames) for camera, frames in observation["frames"].items()}
    return {**observation, "frames": frames, "state": to_numpy(observation["state"])}


def rows_of(observation: Observation, rows: Sequence[int]) -> Observation:
    """These rows of an observation, on the same device; the observation itself if they are all its rows."""
    rows = list(rows)
    if rows == list(range(len(observation["state"]))):
        return observation
    some = Observation(
        frames={camera: frames[rows] for camera, frames in observation["frames"].items()},
        state=observation["state"][rows],
        instruction=tuple(observation["instruction"][row] for row in rows),
    )
    if "step" in observation:
        some["step"] = observation["step"][rows]
    return some
