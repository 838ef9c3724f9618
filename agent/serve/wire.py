"""Safe parsing of untrusted messages: msgpack, arrays and images.

Nothing is unpickled. Small messages cannot allocate much memory: they are unpacked within limits, and an array or image
stays packed until it is read with its expected type and size.

All functions raise UserError for invalid input; the message is for the sender.

Shape letters: H x W pixels.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from envs.errors import UserError

_MAX_ITEMS = 1024
"""Limit of one list or map."""
_MAX_ITEMS_IN_ALL = 10_000
_MAX_DIMS = 8
_MAX_LISTED_CHARS = 300
_MAX_SIDE_PX = 4096
_DTYPE = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248])")
"""Numbers of a fixed size: neither objects nor structures."""


def unpack(message: bytes | str) -> Any:
    """A binary frame of msgpack as Python values; arrays and images stay packed, as maps."""
    if isinstance(message, str):
        raise UserError("a text frame came, expected a binary frame of msgpack")
    num_items = 0

    def count(container: Any) -> Any:
        nonlocal num_items
        num_items += 1 + len(container)
        if num_items > _MAX_ITEMS_IN_ALL:
            raise UserError(f"more than {_MAX_ITEMS_IN_ALL} values")
        return container

    try:
        return msgpack.unpackb(
            message,
            object_hook=count,
            list_hook=count,
            max_array_len=_MAX_ITEMS,
            max_map_len=_MAX_ITEMS,
            max_ext_len=0,
        )
    except ValueError as error:
        raise UserError(f"the {len(message)} bytes that came are not msgpack as expected: {error}") from error


def entry(mapping: Any, key: str) -> Any:
    """mapping[key]."""
    if not isinstance(mapping, Mapping):
        raise UserError(f"{type(mapping).__name__} came, expected a map with {key!r}")
    if key not in mapping:
        raise UserError(f"{key!r} is missing; what came: {', '.join(map(repr, mapping))[:_MAX_LISTED_CHARS]}")
    return mapping[key]


def text(mapping: Any, key: str) -> str:
    """mapping[key], a string."""
    value = entry(mapping, key)
    if not isinstance(value, str):
        raise UserError(f"{key!r} is {type(value).__name__}, expected a string")
    return value


def integer(mapping: Any, key: str) -> int:
    """mapping[key], an integer."""
    value = entry(mapping, key)
    if type(value) is not int:
        raise UserError(f"{key!r} is {type(value).__name__}, expected an integer")
    return value


def array(name: str, value: Any, marker: str | bytes) -> NDArray[Any]:
    """An array of numbers, from its packed map.

    Args:
        name: for error messages.
        value: {marker: True, "data": bytes, "dtype": str, "shape": [...]}, all keys strings or all bytes as the marker.
        marker: the key that marks such a map.
    """
    if not isinstance(value, dict) or marker not in value:
        raise UserError(f"{name!r} is {type(value).__name__}, expected an array")
    data, dtype, shape = (value.get(_like(marker, key)) for key in ("data", "dtype", "shape"))
    if not isinstance(dtype, str) or not _DTYPE.fullmatch(dtype):
        raise UserError(f"{name!r} has dtype {str(dtype)[:_MAX_LISTED_CHARS]}, expected booleans, integers or floats")
    if not isinstance(shape, list) or len(shape) > _MAX_DIMS or not all(type(n) is int and n >= 0 for n in shape):
        raise UserError(f"{name!r} has shape {str(shape)[:_MAX_LISTED_CHARS]}, expected at most {_MAX_DIMS} lengths")
    num_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    if not isinstance(data, bytes) or len(data) != num_bytes:
        size = len(data) if isinstance(data, bytes) else 0
        raise UserError(f"{name!r} has {size} bytes, expected {num_bytes} for shape {tuple(shape)} of {dtype}")
    return np.frombuffer(data, dtype).reshape(shape).copy()


def image(name: str, data: Any, size: tuple[int, int] | None) -> NDArray[np.uint8]:
    """A PNG or JPEG, [H, W, 3]. It is decoded only if its header states this size (H, W), or any common one if None."""
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as picture:
            found, mode = picture.size[::-1], picture.mode
            if mode == "RGB" and (found == size or (size is None and max(found) <= _MAX_SIDE_PX)):
                return np.array(picture)
    except Exception as error:  # Pillow raises errors of many types for broken files
        raise UserError(f"{name!r} is not a readable PNG or JPEG: {error}") from error
    expected = f"at most {_MAX_SIDE_PX}x{_MAX_SIDE_PX}" if size is None else "x".join(map(str, size))
    raise UserError(f"{name!r} is {mode} of {found[0]}x{found[1]} pixels, expected RGB of {expected}")


def packed_array(value: NDArray[Any], marker: str | bytes) -> dict[str | bytes, Any]:
    """The map that `array` reads."""
    entries = {"data": value.tobytes(), "dtype": value.dtype.str, "shape": list(value.shape)}
    return {marker: True} | {_like(marker, key): entry for key, entry in entries.items()}


def _like(marker: str | bytes, key: str) -> str | bytes:
    return key if isinstance(marker, str) else key.encode()
