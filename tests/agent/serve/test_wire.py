"""Parsing of untrusted messages: limits, and invalid arrays and images."""

from __future__ import annotations

import io
import tracemalloc
from typing import Any

import msgpack
import numpy as np
import pytest
from PIL import Image

from agent.serve import wire


def packed(**changes: Any) -> dict[str, Any]:
    return {"__ndarray__": True, "data": bytes(8), "dtype": "<f4", "shape": [2]} | changes


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1.0, 2.0], "'x' is list, expected an array"),
        ({"data": b""}, "'x' is dict, expected an array"),
        (packed(dtype="O"), "'x' has dtype O, expected booleans, integers or floats"),
        (packed(dtype="<f4,<f4"), "'x' has dtype <f4,<f4"),
        (packed(dtype=7), "'x' has dtype 7"),
        (packed(shape=[3]), r"'x' has 8 bytes, expected 12 for shape \(3,\) of <f4"),
        (packed(shape=[-2]), r"'x' has shape \[-2\], expected at most 8 lengths"),
        (packed(shape=[True, 2]), "'x' has shape"),
        (packed(shape=[1] * 9), "'x' has shape"),
        (packed(shape=[2**62, 4]), r"'x' has 8 bytes, expected \d+ for shape"),
        (packed(data="text"), "'x' has 0 bytes, expected 8"),
    ],
)
def test_an_invalid_array_is_refused_by_name(value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        wire.array("x", value, "__ndarray__")


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("text", "a text frame came, expected a binary frame of msgpack"),
        (b"", "the 0 bytes that came are not msgpack"),
        (b"\xc1", "are not msgpack"),
        (msgpack.packb({"a": 1})[:-1], "incomplete"),
        (msgpack.packb([0] * 1025), "1025 exceeds max_array_len"),
        (msgpack.packb([[[]] * 1000] * 11), "more than 10000 values"),
        (msgpack.packb(msgpack.ExtType(1, b"code")), "exceeds max_ext_len"),
        (msgpack.packb({1: 2}), "int is not allowed for map key"),
        (b"\x91" * 100_000, "not msgpack"),
        (b"\xa2\xff\xff", "not msgpack"),
    ],
)
def test_a_message_beyond_the_limits_is_refused(message: bytes | str, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        wire.unpack(message)


def test_a_message_that_announces_much_data_allocates_little() -> None:
    nested = b"\xdd\x00\x00\x04\x00" * 1000  # arrays of 1024, each in the other's first place
    tracemalloc.start()
    with pytest.raises(ValueError, match="not msgpack"):
        wire.unpack(nested)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20e6


def test_an_image_is_decoded_only_at_the_expected_size() -> None:
    file = io.BytesIO()
    Image.new("RGB", (4000, 4000)).save(file, format="png")
    tracemalloc.start()
    with pytest.raises(ValueError, match="'front' is RGB of 4000x4000 pixels, expected RGB of 16x16"):
        wire.image("front", file.getvalue(), (16, 16))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4e6


@pytest.mark.parametrize("data", [b"", b"GIF89a", None, 7, b"\x89PNG\r\n\x1a\n" + bytes(30)])
def test_an_invalid_image_is_refused(data: Any) -> None:
    with pytest.raises(ValueError, match="'front' is not a readable PNG or JPEG"):
        wire.image("front", data, (16, 16))


def test_a_truncated_image_is_refused() -> None:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(file, format="png")
    with pytest.raises(ValueError, match="'front' is not a readable PNG or JPEG"):
        wire.image("front", file.getvalue()[:-200], (16, 16))


def test_a_missing_key_is_reported_with_the_keys_that_came() -> None:
    with pytest.raises(ValueError, match="'prompt' is missing; what came: 'state', 'promt'"):
        wire.entry({"state": 1, "promt": 2}, "prompt")
    with pytest.raises(ValueError, match="list came, expected a map with 'prompt'"):
        wire.entry([1], "prompt")
