"""VlaEvalPolicy: a policy on a model server of vla-eval; agent/serve/vla_eval.py states the protocol.

The server keeps each connection's episode and the rest of its chunk, and answers every observation with one action. So
an episode cannot go on after its connection broke: its failure says so, and the next episode connects again.

Shape letters: n worlds, D columns of an answer, A action dims.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray
from websockets.sync.connection import Connection

from agent.serve import wire
from agent.serve.answers import checked_actions, chunk_of
from agent.serve.client import Adapts
from agent.serve.connections import Connections, WrongServerError
from agent.serve.vla_eval import ARRAY, PROTOCOL_VERSION, pack
from envs.errors import UserError
from envs.types import Observation
from vla_model.types import ActionChunk, check_worlds


class VlaEvalPolicy:
    """Policy of vla_model/types.py with chunks of one action; a world without an action is in ActionChunk.failed."""

    version = -1

    def __init__(self, url: str, adapter: Adapts | None, **options: Any) -> None:
        """
        Args:
            url: ws://HOST:PORT/PATH.
            adapter: translates observations and answers; None only to read `hello`.
            options: of Connections.

        Raises:
            UserError: the URL is not a websocket's.
            ConnectionError: the server cannot be reached or speaks another protocol.
        """
        self._connections = Connections(url, self._greet, **options)
        self._url = url
        self._adapter = adapter
        self._lock = threading.Lock()
        self._seq = itertools.count(1)
        self._instructions: dict[int, str] = {}
        self._answered: set[int] = set()
        """Worlds whose episode has had an action."""
        self.hello: dict[str, Any] = {}
        """The server's, with its specs."""
        self._connections.open(0)

    def begin(self, worlds: Sequence[int], instructions: tuple[str, ...], seeds: tuple[int, ...]) -> None:
        """Begin an episode on the server, for each world. The server is not told the seeds."""
        del seeds
        with self._lock:
            for world, instruction in zip(worlds, instructions, strict=True):
                self._instructions[world] = instruction
                self._answered.discard(world)
                self._connections.tell(world, self._start(world))

    def act(self, worlds: Sequence[int], observation: Observation) -> ActionChunk:
        """One action of each of these worlds, float32 [n, 1, A].

        Raises:
            UserError: the observation has not one row for each of the worlds, or a world comes twice or has not begun.
        """
        assert self._adapter is not None, "a policy without an adapter reads no observation"
        with self._lock:
            check_worlds(worlds, observation, self._instructions)
            seqs = {world: next(self._seq) for world in worlds}
            requests = {
                world: pack(
                    "observation", self._adapter.request(observation, row, self._instructions[world]), seqs[world]
                )
                for row, world in enumerate(worlds)
            }
            answers, errors = self._connections.ask(requests)
            actions: dict[int, NDArray[np.float32]] = {}
            for world, answer in answers.items():
                try:
                    actions[world] = self._adapter.actions(self._action(answer, seqs[world]))
                except (ConnectionError, UserError) as error:
                    errors[world] = error
            self._answered |= answers.keys()
            for world in errors:
                self._connections.drop(world)
            return chunk_of(worlds, actions, errors, fail_rows=True)

    def close(self) -> None:
        """Close all connections."""
        self._connections.close()

    def _start(self, world: int) -> bytes:
        instruction = self._instructions[world]
        return pack("episode_start", {"task": {"name": instruction, "task_description": instruction}}, next(self._seq))

    def _greet(self, world: int, connection: Connection) -> None:
        """Exchange hellos, and begin the world's episode."""
        if world in self._answered:
            raise WrongServerError(f"{self._url} broke the connection within the episode, which it had begun")
        hello = {"harness_version": f"llamarm {version('llamarm')}", "protocol_version": PROTOCOL_VERSION}
        connection.send(pack("hello", hello, 0))
        try:
            kind, payload, _ = _message(connection.recv(self._connections.timeout_s))
        except TimeoutError as error:
            raise WrongServerError(f"{self._url} does not answer vla-eval's hello") from error
        except UserError as error:
            raise WrongServerError(f"{self._url} does not speak vla-eval's protocol: {error}") from error
        if kind != "hello" or payload.get("protocol_version") != PROTOCOL_VERSION:
            said = f"{kind} of protocol {payload.get('protocol_version')!r}"
            raise WrongServerError(f"{self._url} answers {said} to a hello of vla-eval's protocol {PROTOCOL_VERSION}")
        self.hello = payload
        if world in self._instructions:
            connection.send(self._start(world))

    def _action(self, answer: bytes | str, seq: int) -> NDArray[np.float32]:
        """The action of an answer, validated, [1, D].

        Raises:
            ConnectionError: it is not an action.
            UserError: it is an error of the server.
        """
        try:
            kind, payload, answered = _message(answer)
            if kind == "error":
                raise UserError(f"{self._url} refuses the observation: {str(payload.get('error'))[:500]}")
            if kind != "action" or answered != seq:
                raise UserError(f"{self._url} answers observation {seq} with {kind[:40]} {answered}")
        except UserError as error:
            raise ConnectionError(str(error)) from error
        try:
            action = wire.array("actions", wire.entry(payload, "actions"), ARRAY)
        except ValueError as error:
            raise ConnectionError(f"{self._url} answers with something other than an action: {error}") from error
        if action.ndim != 1:
            raise ConnectionError(f"{self._url} answers with an action of shape {action.shape}, expected one dimension")
        return checked_actions(self._url, action[None])


def _message(message: bytes | str) -> tuple[str, dict[str, Any], int]:
    """Type, payload and number.

    Raises:
        UserError: it is no message of the protocol.
    """
    content = wire.unpack(message)
    payload = wire.entry(content, "payload")
    if not isinstance(payload, dict):
        raise UserError(f"'payload' is {type(payload).__name__}, expected a map")
    return wire.text(content, "type"), payload, wire.integer(content, "seq")
