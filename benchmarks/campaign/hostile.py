"""Hostile messages for the server: each has a name, and whether it may be accepted.

A right request in vla-eval's or openpi's manner is the root of them: something of it is left out, is of another type,
shape or length, or is not finite; bytes are flipped or cut off; or nothing of it is left.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np

from benchmarks.campaign.sides import SPEC
from envs.types import Observation

MAY_PASS = "may pass"
MUST_FAIL = "must fail"
_LARGE = 300_000
"""Bytes of a large message."""


@dataclass(frozen=True)
class Message:
    """One to send."""

    name: str
    """What is hostile about it."""
    data: bytes | str
    fate: str
    """MAY_PASS or MUST_FAIL."""


def observation_of(rng: np.random.Generator) -> Observation:
    """One that the policy of the sides' world takes."""
    frames = {c.name: rng.integers(0, 256, (1, c.height, c.width, 3), dtype=np.uint8) for c in SPEC.cameras}
    side = ("left", "right")[int(rng.integers(2))]
    state = rng.uniform(-3, 3, (1, SPEC.state.size)).astype(np.float32)
    return Observation(frames=frames, state=state, instruction=(f"go {side}, number {int(rng.integers(1000))}",))


def vla_eval_request(observation: Observation, seq: int) -> dict[str, Any]:
    """As vla-eval sends it."""
    images = {name: array(frames[0]) for name, frames in observation["frames"].items()}
    said = {
        "images": images,
        "state": array(observation["state"][0]),
        "task_description": observation["instruction"][0],
    }
    return {"type": "observation", "payload": said, "seq": seq, "timestamp": 0.0}


def openpi_request(observation: Observation) -> dict[str, Any]:
    """As openpi's client sends it."""
    frames = {f"observation/{name}": array(frames[0], b"") for name, frames in observation["frames"].items()}
    state = array(observation["state"][0], b"")
    return frames | {"observation/state": state, "prompt": observation["instruction"][0]}


def array(value: Any, like: str | bytes = "") -> dict[Any, Any]:
    """As both pack it: keys are strings for vla-eval, bytes for openpi."""
    packed = {"__ndarray__": True, "data": value.tobytes(), "dtype": value.dtype.str, "shape": list(value.shape)}
    return packed if isinstance(like, str) else {key.encode(): item for key, item in packed.items()}


def _arrays(node: Any) -> list[dict[Any, Any]]:
    """Every packed array below."""
    if not isinstance(node, dict):
        return []
    if "__ndarray__" in node or b"__ndarray__" in node:
        return [node]
    return [found for value in node.values() for found in _arrays(value)]


def _put(rng: random.Random, request: dict[str, Any], key: str, value: Any) -> bytes:
    """The request with that entry of one of its arrays."""
    packed = rng.choice(_arrays(request))
    packed[key if key in packed else key.encode()] = value
    return msgpack.packb(request)


def _dtype(rng: random.Random, request: dict[str, Any]) -> bytes:
    bad = ("O", "|V8", "<M8[s]", "<U4", "<f16", "<c8", "x" * 1000, 7, None, "<i8", "(2,)f4")
    return _put(rng, request, "dtype", rng.choice(bad))


def _shape(rng: random.Random, request: dict[str, Any]) -> bytes:
    bad = ([2**40], [2**62, 2**62], [-1], [0], [], [1] * 40, "many", None, [1.5], [True, 3], [16, 16, 4], [2**31, 0])
    return _put(rng, request, "shape", rng.choice(bad))


def _data(rng: random.Random, request: dict[str, Any]) -> bytes:
    bad = (b"", b"\0", "text", None, 5, [1, 2], b"\xff" * rng.choice((769, 5000)))
    return _put(rng, request, "data", rng.choice(bad))


def _not_finite(rng: random.Random, request: dict[str, Any]) -> bytes:
    state = array(np.array([rng.choice((np.nan, np.inf, -np.inf))], np.float32))
    said = request.get("payload", request)
    key = "state" if "state" in said else "observation/state"
    said[key] = state if key == "state" else {name.encode(): value for name, value in state.items()}
    return msgpack.packb(request)


def _left_out(rng: random.Random, request: dict[str, Any]) -> bytes:
    said = request.get("payload", request)
    del said[rng.choice(sorted(said))]
    return msgpack.packb(request)


def _other_type(rng: random.Random, request: dict[str, Any]) -> bytes:
    said = request.get("payload", request)
    said[rng.choice(sorted(said))] = rng.choice((None, 3, -1.5, True, b"bytes", [], {}, [[[]]], {"a": {"b": 1}}))
    return msgpack.packb(request)


def _sentence(rng: random.Random, request: dict[str, Any]) -> bytes:
    said = request.get("payload", request)
    said["task_description" if "task_description" in said else "prompt"] = rng.choice(("", "x" * 100_000, "é" * 5000))
    return msgpack.packb(request)


def _truncated(rng: random.Random, request: dict[str, Any]) -> bytes:
    whole = msgpack.packb(request)
    return whole[: rng.randrange(len(whole))]


def _trailing(rng: random.Random, request: dict[str, Any]) -> bytes:
    return msgpack.packb(request) + rng.randbytes(rng.randint(1, 50))


def _nested(rng: random.Random, request: dict[str, Any]) -> bytes:
    del request
    return rng.choice((b"\x91", b"\x81\xa1a")) * rng.choice((100, 1023, 1025, 20_000)) + b"\xc0"


def _claims(rng: random.Random, request: dict[str, Any]) -> bytes:
    """Lengths of which nothing follows."""
    del request
    return rng.choice((b"\xdd", b"\xdf", b"\xc6", b"\xdb", b"\xc9")) + rng.choice(
        (b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff")
    )


def _many(rng: random.Random, request: dict[str, Any]) -> bytes:
    del request
    return msgpack.packb([[0] * 1000] * 60 if rng.random() < 0.5 else [0] * 5000)


def _strange(rng: random.Random, request: dict[str, Any]) -> bytes:
    """Other roots, keys that are no strings, extension types, text that is no UTF-8."""
    del request
    values = (
        b"\xc0",
        b"\xc1",
        b"\x01",
        b"\xa3\xff\xfe\xfd",
        b"\xd4\x05a",
        b"\x81\x90\x01",
        b"\x81\xc0\xc0",
        b"\xd7\xff12345678",
    )
    return rng.choice(values)


def _large(rng: random.Random, request: dict[str, Any]) -> bytes:
    del request
    return (
        msgpack.packb({"type": "observation", "seq": 1, "payload": bytes(_LARGE)})
        if rng.random() < 0.5
        else bytes(_LARGE)
    )


def _noise(rng: random.Random, request: dict[str, Any]) -> bytes:
    del request
    return rng.randbytes(rng.randint(1, 200))


_KINDS: dict[str, tuple[Callable[[random.Random, dict[str, Any]], bytes], int]] = {
    "random bytes": (_noise, 20),
    "cut off": (_truncated, 15),
    "bytes behind the end": (_trailing, 5),
    "dtype": (_dtype, 8),
    "shape": (_shape, 8),
    "data of an array": (_data, 8),
    "state that is not finite": (_not_finite, 8),
    "key left out": (_left_out, 6),
    "value of another type": (_other_type, 6),
    "sentence": (_sentence, 2),
    "nesting": (_nested, 3),
    "lengths that are only claimed": (_claims, 3),
    "many values": (_many, 1),
    "strange roots": (_strange, 3),
}
"""{name: (how it is made, weight)}; all must be refused."""
_RARE = 0.001
"""Of large messages."""


def hostile(rng: random.Random, request: dict[str, Any]) -> Message:
    """One, of a right request, which is used up."""
    kind = rng.random()
    if kind < _RARE:
        return Message("large", _large(rng, request), MUST_FAIL)
    if kind < 0.02:
        return Message("empty", b"", MUST_FAIL)
    if kind < 0.05:
        return Message("text frame", rng.choice(("", "hello", "x" * 3000, '{"type": "hello"}')), MUST_FAIL)
    if kind < 0.15:
        data = bytearray(msgpack.packb(request))
        for _ in range(rng.randint(1, 3)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        return Message("bytes changed", bytes(data), MAY_PASS)  # of a pixel, for example
    names = list(_KINDS)
    (name,) = rng.choices(names, [_KINDS[name][1] for name in names])
    return Message(name, _KINDS[name][0](rng, request), MUST_FAIL)
