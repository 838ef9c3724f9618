"""vla-eval's websocket protocol, version 1 (vla_eval 0.8.0).

    client  hello          server  hello      the policy's observations and actions
    client  episode_start                     no reply
    client  observation    server  action     {"actions": float32 [A]}, for one step
    client  episode_end                       no reply
            or             server  error      {"error": "observation_failed: ..."}; the connection stays open

Every frame is msgpack of {"type", "payload", "seq", "timestamp"}; a reply has the seq of what it answers. An array is a
map with the keys "__ndarray__", "data", "dtype" and "shape"; an image {"__image__", "format": "png" | "jpeg" | "raw",
"data", ...}. An observation is {"images": {camera: uint8 [H, W, 3]}, "state": [S], "task_description": str}.

The client sends every observation. The policy runs for the first of `n_action_steps` observations; its chunk answers
all of them, and the others are ignored. An episode_start clears a policy's observation history.

Shape letters: A action dims, S state dims, H x W pixels.
"""

from __future__ import annotations

import time
from collections import deque
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import msgpack
import numpy as np
from numpy.typing import NDArray

from agent.serve import wire
from envs.errors import UserError

if TYPE_CHECKING:
    from agent.serve.client_state import ClientState
    from agent.serve.link import Link
    from envs.types import CameraSpec, VectorSpec, WorldSpec

PROTOCOL_VERSION = 1
_SILENT = ("episode_start", "episode_end", "error")
"""Messages without a reply; each drops the rest of the chunk."""
_NO_HELLO = "no hello came, with which vla-eval's protocol begins; openpi's is served on the path /"
_POLICY_VIOLATION = 1008
_MOTIONS = (("position", "delta_xyz", " m/step"), ("rotation", "axis_angle", " rad/step"))
"""Part, vla-eval's name of its format, and the suffix of its units."""
_GRIPPERS = {"-1 open, 1 closed": "binary_close_positive", "-1 closed, 1 open": "binary_close_negative"}
"""{unit of a gripper: vla-eval's name of its format}"""
ARRAY = "__ndarray__"
"""Key that marks a packed array."""
_IMAGE = "__image__"


async def converse(link: Link, client: ClientState, metadata: dict[str, Any]) -> None:
    """Serve one client until it disconnects."""
    chunk = _Chunk(client)
    try:
        message = await link.receive(link.limits.hello_timeout_s)
    except TimeoutError:
        link.say_cut_off(_NO_HELLO)
        await link.send(pack("error", {"error": _NO_HELLO}, 0))
        await link.close(_POLICY_VIOLATION, _NO_HELLO)
        return
    while True:
        kind, seq = "message", 0
        try:
            request = wire.unpack(message)
            kind, seq = wire.text(request, "type"), wire.integer(request, "seq")
            if kind == "hello":
                reply = pack("hello", _hello(client.world_spec, metadata), seq)
            elif kind == "observation":
                with link.measured():
                    action = await chunk.next_action(wire.entry(request, "payload"))
                reply = pack("action", {"actions": action}, seq)
            elif kind in _SILENT:
                reply = None
                chunk.drop()
                if kind == "episode_start":
                    client.restart()
            else:
                raise UserError(f"type {kind[:40]!r} does not exist; types: hello, observation, {', '.join(_SILENT)}")
        except Exception as error:  # any failure is reported to this client and does not affect the others
            reply = pack("error", {"error": f"{kind[:40]}_failed: {link.explain(error)}"}, seq)
        if reply is not None:
            await link.send(reply)
        message = await link.receive()


class _Chunk:
    """The rest of the chunk that a client is executing."""

    def __init__(self, client: ClientState) -> None:
        self._client = client
        self._rest: deque[NDArray[np.float32]] = deque()
        self._instruction = ""

    def drop(self) -> None:
        self._rest.clear()

    async def next_action(self, observation: Any) -> NDArray[np.float32]:
        """[A]; runs the policy if the last chunk is used up, or was for another instruction."""
        instruction = wire.text(observation, "task_description")
        if not self._rest or instruction != self._instruction:
            self._rest.clear()
            images = wire.entry(observation, "images")
            frames = {
                camera.name: _frame(camera, wire.entry(images, camera.name), any_size=self._client.resizes)
                for camera in self._client.world_spec.cameras
            }
            state = wire.array("state", wire.entry(observation, "state"), ARRAY)
            actions = await self._client.act(frames, state, instruction)
            self._rest.extend(actions[: self._client.n_action_steps])
            self._instruction = instruction
        return self._rest.popleft()


def _frame(camera: CameraSpec, value: Any, *, any_size: bool) -> NDArray[Any]:
    if isinstance(value, dict) and _IMAGE in value:
        if value.get("format") == "raw":
            return wire.array(camera.name, value, _IMAGE)
        size = None if any_size else (camera.height, camera.width)
        return wire.image(camera.name, value.get("data"), size)
    return wire.array(camera.name, value, ARRAY)


def _hello(world_spec: WorldSpec, metadata: dict[str, Any]) -> dict[str, Any]:
    """The policy's observations and actions as vla-eval's DimSpecs; a client compares them with its own and warns."""
    images = {c.name: {"name": "image", "dims": 0, "format": "rgb_hwc_uint8"} for c in world_spec.cameras}
    return {
        "harness_version": f"llamarm {version('llamarm')}",
        "protocol_version": PROTOCOL_VERSION,
        "model_server": "llamarm",
        "capabilities": {},
        "observation_params": {"send_state": True},
        "action_spec": action_spec(world_spec.action),
        "observation_spec": {
            **images,
            "state": _dim_spec("state", world_spec.state),
            "language": {"name": "language", "dims": 0, "format": "language"},
        },
        "metadata": metadata,
    }


def action_spec(action: VectorSpec) -> dict[str, Any]:
    """The parts of an action in its order: position, rotation and gripper, as vla-eval's benchmarks name them.

    Any other action is one part, whose format is the names of its elements.
    """
    parts: dict[str, Any] = {}
    rest = action.units
    for name, kind, unit in _MOTIONS:
        if len(rest) >= 3 and all(given.endswith(unit) for given in rest[:3]):
            parts[name] = {"name": name, "dims": 3, "format": kind, "range": [-1.0, 1.0]}
            rest = rest[3:]
    if len(rest) == 1 and action.grippers == (action.size - 1,):
        kind = _GRIPPERS.get(rest[0], "raw")
        parts["gripper"] = {"name": "gripper", "dims": 1, "format": kind, "range": [-1.0, 1.0]}
        rest = ()
    return {"action": _dim_spec("action", action) | {"range": [-1.0, 1.0]}} if rest else parts


def _dim_spec(name: str, vector: VectorSpec) -> dict[str, Any]:
    return {"name": name, "dims": vector.size, "format": " ".join(vector.names)}


def pack(kind: str, payload: dict[str, Any], seq: int) -> bytes:
    """A frame of the protocol."""
    message = {"type": kind, "payload": payload, "seq": seq, "timestamp": time.time()}
    return msgpack.packb(message, default=partial(wire.packed_array, marker=ARRAY))
