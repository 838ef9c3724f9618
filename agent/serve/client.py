"""ServedPolicy: the client of `llamarm serve`, with the interface of a local policy.

It needs numpy, msgpack, websockets, Pillow, gymnasium and array-api-compat, but neither torch nor a simulator.

Shape letters: n worlds, K chunk size, A action dims.
"""

from __future__ import annotations

import math
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidStatus
from websockets.sync.client import connect
from websockets.sync.connection import Connection

from agent.serve import openpi, wire
from envs.arrays import to_float32
from envs.errors import UserError
from envs.types import Observation, WorldSpec
from vla_model.files.old_names import with_new_names
from vla_model.types import ActionChunk, check_worlds

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0
_AWAY = (502, 503, 504)
"""Statuses of a full server, or of a proxy without its server."""
_GOODBYE_S = 1.0
"""Timeout for closing a connection."""
_TOO_BIG = 1009
"""Close code of a message above the server's size limit; retrying would not help."""
_ELSEWHERE = "/vla-eval"
"""Path of another protocol, in which the client speaks first."""
_SEEN = "observation"
"""Key of the metadata: the entries of an observation."""
_KINDS: dict[str, type] = {
    "policy_version": int,
    "n_action_steps": int,
    "action_horizon": int,
    "action_dim": int,
    "history_steps": int,
    _SEEN: dict,
}
"""Types of the metadata in use; all are optional."""


class _OtherServerError(ConnectionError):
    """Another server or protocol answers; retrying would not help."""


class ServedPolicy:
    """Policy of vla_model/types.py, with a connection for each world, so that the server batches them.

    After a broken connection it reconnects and sends the observation again, preceded by the episode's observation
    history for a policy that uses one. Actions depend on nothing else, so the result is the same. Calls from several
    threads are serialized.

    Example:
        with ServedPolicy("ws://127.0.0.1:8000") as policy:
            policy.begin([0], ("lift the red cube",), seeds=(0,))
            actions = policy.act([0], observation).actions
    """

    def __init__(
        self, url: str, *, api_key: str | None = None, timeout_s: float = 30.0, patience_s: float = 60.0, **options: Any
    ) -> None:
        """
        Args:
            url: ws://HOST:PORT or wss://HOST:PORT.
            api_key: what the server's --api-key-file holds.
            timeout_s: timeout of an answer, after which its connection counts as broken.
            patience_s: how long to retry a server that cannot be reached.
            options: of websockets' connect, e.g. `ssl`.

        Raises:
            UserError: the URL is not a websocket's, or has the path of another protocol.
            ConnectionError: the server cannot be reached, refuses this client or speaks another protocol.
        """
        _check_url(url)
        for name, seconds in (("timeout_s", timeout_s), ("patience_s", patience_s)):
            if not 0 < seconds < math.inf:
                raise UserError(f"{name} is {seconds}, expected a finite number of seconds above 0")
        self._url = url
        self._headers = {} if api_key is None else {"Authorization": f"Api-Key {api_key}"}
        self._timeout_s = timeout_s
        self._patience_s = patience_s
        self._options: dict[str, Any] = {"close_timeout": _GOODBYE_S, "open_timeout": timeout_s} | options
        self._lock = threading.Lock()
        self._closed = False
        self._instructions: dict[int, str] = {}
        self._connections: dict[int, Connection] = {}
        self._remembered: dict[int, deque[tuple[int, bytes]]] = {}
        """Observation history of each world's episode, as (step, request)."""
        self.metadata: dict[str, Any] = {}
        """The server's metadata of its policy."""
        self._connection(0)

    def __enter__(self) -> ServedPolicy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def version(self) -> int:
        """Version of the weights; -1 if the server sends none."""
        return self.metadata.get("policy_version", -1)

    @property
    def n_action_steps(self) -> int | None:
        """Actions to execute of each chunk, if the server sends it."""
        return self.metadata.get("n_action_steps")

    def check(self, world_spec: WorldSpec) -> None:
        """
        Raises:
            UserError: the world differs from the policy's, as far as the server's metadata describes it; the message
                lists every difference.
        """
        here = openpi.world_metadata(world_spec)
        pairs = {key: (here[key], self.metadata[key]) for key in here.keys() & self.metadata.keys() - {_SEEN}}
        for name, shape in self.metadata.get(_SEEN, {}).items():
            if isinstance(shape, list):
                pairs[name] = here[_SEEN].get(name), shape
        differences = [
            f"{key} is {ours}, expected {told}" for key, (ours, told) in sorted(pairs.items()) if ours != told
        ]
        if differences:
            raise UserError(f"the policy of {self._url} was made for another world:\n  " + "\n  ".join(differences))

    def begin(self, worlds: Sequence[int], instructions: tuple[str, ...], seeds: tuple[int, ...]) -> None:
        """Store the instructions, which are sent with the next observation. The server does not sample."""
        del seeds
        with self._lock:
            self._instructions.update(zip(worlds, instructions, strict=True))
            self._remembered.update((world, deque()) for world in worlds)

    def act(self, worlds: Sequence[int], observation: Observation) -> ActionChunk:
        """Actions of these worlds, float32 [n, K, A].

        Raises:
            UserError: the server refuses an observation, with its message. Or the observation has not one row for each
                of the worlds, a world comes twice or has not begun, or the step is missing that a policy with an
                observation history needs.
            ConnectionError: the server cannot be reached again, or its answer is not an action.
        """
        with self._lock:
            return self._act(worlds, observation)

    def _act(self, worlds: Sequence[int], observation: Observation) -> ActionChunk:
        check_worlds(worlds, observation, self._instructions)
        requests = {world: self._request(observation, row, world) for row, world in enumerate(worlds)}
        try:
            for world, request in requests.items():
                self._send(world, request)
            actions = np.stack([self._receive(world, request) for world, request in requests.items()])
        except BaseException:
            for world in worlds:  # an unread answer would be taken for the next observation's
                self._drop(world)
            raise
        if window := self.metadata.get("history_steps"):
            for world, step in zip(worlds, observation["step"].tolist(), strict=True):
                self._remember(world, step, requests[world], window)
        return ActionChunk(actions=actions)

    def close(self) -> None:
        """Close all connections; a thread that waits for an answer then gets a ConnectionError."""
        self._closed = True
        connections, self._connections = self._connections, {}
        for connection in connections.values():
            connection.close()

    def _request(self, observation: Observation, row: int, world: int) -> bytes:
        frames = {openpi.PREFIX + name: frames[row] for name, frames in observation["frames"].items()}
        said = {openpi.STATE: observation["state"][row], openpi.PROMPT: self._instructions[world]}
        if "history_steps" in self.metadata:
            if "step" not in observation:
                raise UserError("the policy has an observation history, so an observation needs a 'step'")
            said[openpi.STEP] = int(observation["step"][row])
        return openpi.pack(frames | said)

    def _remember(self, world: int, step: int, request: bytes, window: int) -> None:
        """Store the request, and drop those that are older than the policy's history."""
        kept = self._remembered[world]
        kept.append((step, request))
        while len(kept) > 1 and kept[1][0] <= step - window:
            kept.popleft()

    def _send(self, world: int, request: bytes) -> None:
        try:
            self._connection(world).send(request)
        except (ConnectionClosed, TimeoutError):
            self._drop(world)  # _receive reconnects

    def _receive(self, world: int, request: bytes) -> NDArray[np.float32]:
        deadline_s = time.monotonic() + self._patience_s
        while True:
            try:
                connection = self._connections.get(world)
                if connection is None:
                    connection = self._connection(world)
                    connection.send(request)
                answer = connection.recv(self._timeout_s)
                break
            except (ConnectionClosed, TimeoutError) as error:
                self._drop(world)
                if isinstance(error, ConnectionClosed) and error.rcvd is not None and error.rcvd.code == _TOO_BIG:
                    raise UserError(f"{self._url} takes no message of {len(request)} bytes") from error
                if time.monotonic() > deadline_s:
                    raise ConnectionError(f"{self._url} gave no answer for {self._patience_s:g} s") from error
                time.sleep(_FIRST_PAUSE_S)
        if isinstance(answer, str):
            raise UserError(f"{self._url} refuses the observation: {answer}")
        return self._actions(answer)

    def _actions(self, answer: bytes) -> NDArray[np.float32]:
        """The actions of an answer, validated, [K, A].

        Raises:
            ConnectionError: it is not an answer, has another shape than in the metadata, or a number that is not
            finite.
        """
        try:
            actions = openpi.array("actions", wire.entry(wire.unpack(answer), "actions"))
        except ValueError as error:
            raise ConnectionError(f"{self._url} answers with something other than actions: {error}") from error
        expected = [self.metadata.get("action_horizon"), self.metadata.get("action_dim")]
        if actions.ndim != 2 or any(
            want not in (None, have) for want, have in zip(expected, actions.shape, strict=True)
        ):
            raise ConnectionError(f"{self._url} answers with actions of shape {actions.shape}, expected {expected}")
        if actions.dtype.kind not in "fiu" or not len(actions):
            raise ConnectionError(
                f"{self._url} answers with {actions.dtype} {actions.shape}, expected one action or more, of numbers"
            )
        actions = to_float32(actions)
        if not np.isfinite(actions).all():
            raise ConnectionError(f"{self._url} answers with actions that are not finite numbers")
        return actions

    def _connection(self, world: int) -> Connection:
        """The world's connection; a new one is made with exponential backoff, and first sent its episode's history.

        Raises:
            ConnectionError: the server cannot be reached.
        """
        if (known := self._connections.get(world)) is not None:
            return known
        deadline_s, pause_s = time.monotonic() + self._patience_s, _FIRST_PAUSE_S
        while True:
            if self._closed:
                raise ConnectionError(f"the connections to {self._url} were closed")
            try:
                connection = self._connected(world)
            except _OtherServerError:
                raise
            except InvalidStatus as error:
                if error.response.status_code not in _AWAY:
                    reason = (error.response.body or b"").decode(errors="replace").strip()
                    raise ConnectionError(f"{self._url} refuses this client: {error}; {reason}") from error
                trouble: Exception = error
            except InvalidMessage as error:
                if isinstance(error.__cause__, ValueError):  # the answer was not HTTP/1.1
                    raise ConnectionError(f"{self._url} speaks no websocket: {error.__cause__}") from error
                trouble = error
            except (OSError, ConnectionClosed) as error:  # a proxy may close at once
                trouble = error
            except InvalidHandshake as error:
                raise ConnectionError(f"{self._url} speaks no websocket: {error}") from error
            else:
                self._connections[world] = connection
                if not self._closed:
                    return connection
                self._drop(world)  # `close` came meanwhile
                continue
            if time.monotonic() + pause_s > deadline_s:
                raise ConnectionError(f"{self._url} cannot be reached: {trouble}") from trouble
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _connected(self, world: int) -> Connection:
        """A new connection, on which the world's observation history has been sent."""
        with ExitStack() as stack:
            connection = stack.enter_context(
                connect(
                    self._url,
                    additional_headers=self._headers,
                    compression=None,
                    max_size=None,
                    **self._options,
                )
            )
            _limit_sending(connection.socket, self._timeout_s)
            told = self._metadata(connection)
            if self.metadata and _but_version(told) != _but_version(self.metadata):
                raise _OtherServerError(f"{self._url} came back with another policy: {told}, was {self.metadata}")
            self.metadata = told
            for _, request in self._remembered.get(world, ()):
                connection.send(request)
                if isinstance(refusal := connection.recv(self._timeout_s), str):
                    raise UserError(f"{self._url} refuses the episode's observation history: {refusal}")
            stack.pop_all()  # keeps the connection open
        return connection

    def _metadata(self, connection: Connection) -> dict[str, Any]:
        """The metadata, which the server sends first.

        Raises:
            TimeoutError: nothing came.
            ConnectionError: it is not of openpi's protocol.
        """
        try:
            told = with_new_names(wire.unpack(connection.recv(self._timeout_s)))
        except TimeoutError as error:
            raise TimeoutError(f"it said nothing for {self._timeout_s:g} s; openpi's servers speak first") from error
        except ValueError as error:
            raise _OtherServerError(f"{self._url} does not speak openpi's protocol: {error}") from error
        if not isinstance(told, dict) or "payload" in told:
            raise _OtherServerError(f"{self._url} does not speak openpi's protocol: it began with {str(told)[:200]}")
        for name, kind in _KINDS.items():
            if name in told and type(told[name]) is not kind:
                said = repr(told[name])[:200]
                raise _OtherServerError(f"{self._url} says that {name} is {said}, expected a value of {kind.__name__}")
        return told

    def _drop(self, world: int) -> None:
        if (connection := self._connections.pop(world, None)) is not None:
            connection.close()


def _check_url(url: str) -> None:
    """
    Raises:
        UserError: the URL is not a websocket's, or has the path of another protocol.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("ws", "wss") or not parts.hostname:
        raise UserError(f"{url!r} is no URL of a websocket, expected ws://HOST:PORT or wss://HOST:PORT")
    if parts.path.rstrip("/") == _ELSEWHERE:
        right = f"{parts.scheme}://{parts.netloc}"
        raise UserError(f"{url} speaks vla-eval's protocol; a ServedPolicy speaks openpi's, which is at {right}")


def _but_version(metadata: dict[str, Any]) -> dict[str, Any]:
    """The metadata that must not change while a policy is in use."""
    return {name: value for name, value in metadata.items() if name != "policy_version"}


def _limit_sending(connected: socket.socket, timeout_s: float) -> None:
    """Set a send timeout, so that a server that reads nothing does not block `send` for ever."""
    limit = struct.pack("ll", int(timeout_s), int(timeout_s % 1 * 1e6))
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
