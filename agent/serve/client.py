"""ServedPolicy: the client of `llamarm serve` and of openpi's servers, with the interface of a local policy.

It needs numpy, msgpack, websockets, Pillow, gymnasium and array-api-compat, but neither torch nor a simulator.

Shape letters: n worlds, K chunk size, D columns of an answer, A action dims.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray
from websockets.sync.connection import Connection

from agent.serve import openpi, wire
from agent.serve.answers import checked_actions, chunk_of
from agent.serve.connections import Connections, WrongServerError
from envs.errors import UserError
from envs.types import Observation, WorldSpec
from vla_model.files.old_names import with_new_names
from vla_model.types import ActionChunk, check_worlds

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


class Adapts(Protocol):
    """Translates a world's observations and a server's answers."""

    def request(self, observation: Observation, row: int, instruction: str) -> dict[str, Any]:
        """The server's observation of one row."""
        ...

    def actions(self, answer: NDArray[np.float32]) -> NDArray[np.float32]:
        """The world's actions [K, A] of an answer [K, D].

        Raises:
            UserError: the answer does not fit.
        """
        ...


class ServedPolicy:
    """Policy of vla_model/types.py, with a connection for each world, so that the server batches them.

    After a broken connection it reconnects and sends the observation again, preceded by the episode's observation
    history for a policy that uses one. Actions depend on nothing else, so the result is the same. Calls from several
    threads are serialized.

    Examples:
        >>> with ServedPolicy("ws://127.0.0.1:8000") as policy:
        ...     policy.begin([0], ("lift the red cube",), seeds=(0,))
        ...     actions = policy.act([0], observation).actions
    """

    def __init__(self, url: str, *, adapter: Adapts | None = None, fail_rows: bool = False, **options: Any) -> None:
        """
        Args:
            url: ws://HOST:PORT or wss://HOST:PORT.
            adapter: translates observations and answers; None for a server of `llamarm serve`.
            fail_rows: report a world without an action in ActionChunk.failed, instead of raising its error.
            options: of Connections: api_key, timeout_s, patience_s, and those of websockets' connect.

        Raises:
            UserError: the URL is not a websocket's, or has the path of another protocol.
            ConnectionError: the server cannot be reached, refuses this client or speaks another protocol.
        """
        parts = urlsplit(url)
        if parts.path.rstrip("/") == _ELSEWHERE:
            raise UserError(
                f"{url} speaks vla-eval's protocol; a ServedPolicy speaks openpi's, which is at "
                f"{parts.scheme}://{parts.netloc}"
            )
        self._connections = Connections(url, self._greet, **options)
        self._url = url
        self._adapter: Adapts = adapter or _Own()
        self._fail_rows = fail_rows
        self._lock = threading.Lock()
        self._instructions: dict[int, str] = {}
        self._remembered: dict[int, deque[tuple[int, bytes]]] = {}
        """Observation history of each world's episode, as (step, request)."""
        self.metadata: dict[str, Any] = {}
        """The server's metadata of its policy."""
        self.version = -1
        """Of the weights; -1 if the server sends none."""
        self._connections.open(0)

    def __enter__(self) -> ServedPolicy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def n_action_steps(self) -> int | None:
        """Actions to execute of each chunk, if the server sends it."""
        return self.metadata.get("n_action_steps")

    def check(self, world_spec: WorldSpec) -> None:
        """
        Raises:
            UserError: see check_metadata.
        """
        check_metadata(self._url, self.metadata, world_spec)

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
        answers, errors = self._connections.ask(requests)
        actions: dict[int, NDArray[np.float32]] = {}
        for world, answer in answers.items():
            try:
                actions[world] = self._actions(answer)
            except (ConnectionError, UserError) as error:
                errors[world] = error
        if window := self.metadata.get("history_steps"):
            for world, step in zip(worlds, observation["step"].tolist(), strict=True):
                self._remember(world, step, requests[world], window)
        return chunk_of(worlds, actions, errors, fail_rows=self._fail_rows)

    def close(self) -> None:
        """Close all connections; a thread that waits for an answer then gets a ConnectionError."""
        self._connections.close()

    def _request(self, observation: Observation, row: int, world: int) -> bytes:
        entries = self._adapter.request(observation, row, self._instructions[world])
        if "history_steps" in self.metadata:
            if "step" not in observation:
                raise UserError("the policy has an observation history, so an observation needs a 'step'")
            entries[openpi.STEP] = int(observation["step"][row])
        return openpi.pack(entries)

    def _remember(self, world: int, step: int, request: bytes, window: int) -> None:
        """Store the request, and drop those that are older than the policy's history."""
        kept = self._remembered[world]
        kept.append((step, request))
        while len(kept) > 1 and kept[1][0] <= step - window:
            kept.popleft()

    def _actions(self, answer: bytes | str) -> NDArray[np.float32]:
        """The actions of an answer, validated, [K, A].

        Raises:
            UserError: the server refuses the observation, or the actions do not fit the adapter.
            ConnectionError: it is not an answer, has another shape than in the metadata, or a number that is not
                finite.
        """
        if isinstance(answer, str):
            raise UserError(f"{self._url} refuses the observation: {answer}")
        try:
            actions = openpi.array("actions", wire.entry(wire.unpack(answer), "actions"))
        except ValueError as error:
            raise ConnectionError(f"{self._url} answers with something other than actions: {error}") from error
        expected = [self.metadata.get("action_horizon"), self.metadata.get("action_dim")]
        if actions.ndim != 2 or any(
            want not in (None, have) for want, have in zip(expected, actions.shape, strict=True)
        ):
            named = zip(("actions", "dimensions"), expected, strict=True)
            shape = ", ".join(name if want is None else str(want) for name, want in named)
            raise ConnectionError(f"{self._url} answers with actions of shape {actions.shape}, expected [{shape}]")
        return self._adapter.actions(checked_actions(self._url, actions))

    def _greet(self, world: int, connection: Connection) -> None:
        """Read the metadata, and send the world's observation history."""
        metadata = self._metadata(connection)
        if self.metadata and _but_version(metadata) != _but_version(self.metadata):
            raise WrongServerError(f"{self._url} came back with another policy: {metadata}, was {self.metadata}")
        self.metadata = metadata
        self.version = metadata.get("policy_version", -1)
        for _, request in self._remembered.get(world, ()):
            connection.send(request)
            if isinstance(refusal := connection.recv(self._connections.timeout_s), str):
                raise UserError(f"{self._url} refuses the episode's observation history: {refusal}")

    def _metadata(self, connection: Connection) -> dict[str, Any]:
        """The metadata, which the server sends first.

        Raises:
            TimeoutError: nothing came.
            ConnectionError: it is not of openpi's protocol.
        """
        try:
            metadata = with_new_names(wire.unpack(connection.recv(self._connections.timeout_s)))
        except TimeoutError as error:
            waited = f"it said nothing for {self._connections.timeout_s:g} s"
            raise TimeoutError(f"{waited}; openpi's servers speak first") from error
        except ValueError as error:
            raise WrongServerError(f"{self._url} does not speak openpi's protocol: {error}") from error
        if not isinstance(metadata, dict) or "payload" in metadata:
            raise WrongServerError(f"{self._url} does not speak openpi's protocol: it began with {str(metadata)[:200]}")
        for name, kind in _KINDS.items():
            if name in metadata and type(metadata[name]) is not kind:
                said = repr(metadata[name])[:200]
                raise WrongServerError(f"{self._url} says that {name} is {said}, expected a value of {kind.__name__}")
        return metadata


class _Own:
    """The entries of `llamarm serve`, whose answers are the world's actions."""

    def request(self, observation: Observation, row: int, instruction: str) -> dict[str, Any]:
        frames = {openpi.PREFIX + name: frames[row] for name, frames in observation["frames"].items()}
        return frames | {openpi.STATE: observation["state"][row], openpi.PROMPT: instruction}

    def actions(self, answer: NDArray[np.float32]) -> NDArray[np.float32]:
        return answer


def check_metadata(url: str, metadata: dict[str, Any], world_spec: WorldSpec) -> None:
    """
    Raises:
        UserError: the world differs from the policy's, as far as the server's metadata describes it; the message lists
            every difference.
    """
    here = openpi.world_metadata(world_spec)
    pairs = {key: (here[key], metadata[key]) for key in here.keys() & metadata.keys() - {_SEEN}}
    for name, shape in metadata.get(_SEEN, {}).items():
        if isinstance(shape, list):
            pairs[name] = here[_SEEN].get(name), shape
    differences = [
        f"{key} is {ours}, expected {theirs}" for key, (ours, theirs) in sorted(pairs.items()) if ours != theirs
    ]
    if differences:
        raise UserError(f"the policy of {url} was made for another world:\n  " + "\n  ".join(differences))


def _but_version(metadata: dict[str, Any]) -> dict[str, Any]:
    """The metadata that must not change while a policy is in use."""
    return {name: value for name, value in metadata.items() if name != "policy_version"}
