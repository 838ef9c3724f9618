"""openpi's websocket protocol (openpi_client 0.1.2).

    server  binary  metadata                                  sent first
    client  binary  observation   {"observation/<camera>": uint8 [H, W, 3], "observation/state": [S], "prompt": str}
                                  and optionally "observation/step": control steps since the episode began
    server  binary  answer        {"actions": float32 [K, A], "policy_timing": {...}, "server_timing": {...}}
            or text an error, and the connection is closed with code 1011

Frames are msgpack; an array is a map with the keys b"__ndarray__", b"data", b"dtype" and b"shape". There is one pending
request per connection, and no message for a new episode. Clients of a policy with an observation history should send
the step: a smaller one than the last begins an episode.

The actions are the only array of an answer, because clients may slice every array by step (openpi_client's
ActionChunkBroker does).

Shape letters: K chunk size, A action dims, S state dims, H x W pixels.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgpack
import numpy as np
from numpy.typing import NDArray

from agent.serve import wire
from envs.errors import UserError
from envs.types import WorldSpec

if TYPE_CHECKING:
    from agent.serve.client_state import ClientState
    from agent.serve.link import Link

PREFIX = "observation/"
STATE = "observation/state"
STEP = "observation/step"
PROMPT = "prompt"
_MARKER = b"__ndarray__"
_CLOSE_CODE = 1011
_CLOSE_REASON = "Internal server error. Traceback included in previous frame."
"""The text of openpi's own server."""


def pack(value: Any) -> bytes:
    """msgpack, arrays included.

    Raises:
        UserError: an array holds something other than numbers.
        TypeError: msgpack does not support a value's type.
    """
    return msgpack.packb(value, default=_pack_array)


def array(name: str, value: Any) -> NDArray[Any]:
    """An array that `wire.unpack` left packed; see `wire.array`."""
    return wire.array(name, value, _MARKER)


def world_metadata(world_spec: WorldSpec) -> dict[str, Any]:
    """The metadata of the policy's world: plain values, as msgpack unpacks them."""
    return {
        "action_dim": world_spec.action.size,
        "action_names": list(world_spec.action.names),
        "action_units": list(world_spec.action.units),
        "control_hz": round(1.0 / world_spec.control_dt_s, 6),
        "state_names": list(world_spec.state.names),
        "state_units": list(world_spec.state.units),
        "observation": {
            **{PREFIX + camera.name: [camera.height, camera.width, 3] for camera in world_spec.cameras},
            STATE: [world_spec.state.size],
            PROMPT: "a sentence",
        },
    }


async def converse(link: Link, client: ClientState, metadata: dict[str, Any]) -> None:
    """Serve one client until it disconnects or sends something invalid."""
    await link.send(pack(metadata))
    total_ms: float | None = None
    while True:
        message = await link.receive()
        began_s = time.perf_counter()
        try:
            with link.measured():
                answer = await _answer(client, message)
        except Exception as error:  # any failure is reported to this client and does not affect the others
            await link.send(link.explain(error))
            await link.close(_CLOSE_CODE, _CLOSE_REASON)
            return
        if total_ms is not None:
            answer["server_timing"]["prev_total_ms"] = total_ms
        await link.send(pack(answer))
        total_ms = _since_ms(began_s)


async def _answer(client: ClientState, message: bytes | str) -> dict[str, Any]:
    read_s = time.perf_counter()
    observation = wire.unpack(message)
    if isinstance(observation, dict) and observation.get("type") == "hello":
        raise UserError(
            "this is a hello of vla-eval's protocol, which is served on the path /vla-eval; this path is openpi's"
        )
    frames = {
        camera.name: array(PREFIX + camera.name, wire.entry(observation, PREFIX + camera.name))
        for camera in client.world_spec.cameras
    }
    state = array(STATE, wire.entry(observation, STATE))
    prompt = wire.text(observation, PROMPT)
    step = wire.integer(observation, STEP) if STEP in observation else None
    began_s = time.perf_counter()
    actions = await client.act(frames, state, prompt, step)
    return {
        "actions": actions,
        "policy_timing": {"infer_ms": _since_ms(began_s)},
        "server_timing": {"infer_ms": _since_ms(read_s)},
    }


def _since_ms(began_s: float) -> float:
    return 1000.0 * (time.perf_counter() - began_s)


def _pack_array(value: Any) -> Any:
    if not isinstance(value, np.ndarray | np.generic):
        raise TypeError(f"{type(value).__name__} cannot be packed")
    if value.dtype.kind in "VOc":
        raise UserError(f"an array of {value.dtype} cannot be packed, only numbers can")
    if isinstance(value, np.generic):
        return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}
    return wire.packed_array(value, _MARKER)
