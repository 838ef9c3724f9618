"""Invalid clients affect no other client, leave no state, and do not stop the server."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Generator
from typing import Any
from urllib.parse import urlsplit

import msgpack
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from serving import EXECUTE_STEPS, client, in_process, infer, running, said, served, settled, tiny_policy
from test_vla_eval import seen
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from agent.serve import openpi
from agent.serve.link import LimitsConfig
from agent.serve.server import PolicyServer, ServerConfig

PATIENT = LimitsConfig(max_rate_hz=1e6)
HASTY = LimitsConfig(max_rate_hz=1e6, send_timeout_s=0.5, ping_timeout_s=0.5)


def changed(**changes: Any) -> dict[str, Any]:
    names = {"front": "observation/front", "wrist": "observation/wrist", "state": "observation/state"}
    return said(0) | {names.get(name, name): value for name, value in changes.items()}


BAD = {
    "a list": ([1, 2], "list came, expected a map with 'observation/front'"),
    "a number": (7, "int came, expected a map"),
    "an empty map": ({}, "'observation/front' is missing; what came: "),
    "no prompt": ({k: v for k, v in said(0).items() if k != "prompt"}, "'prompt' is missing"),
    "an empty prompt": (changed(prompt=""), "the instruction is '', expected text that says what to do"),
    "a prompt that is a number": (changed(prompt=3), "'prompt' is int, expected a string"),
    "a long prompt": (changed(prompt="go " * 99), "the instruction has 297 characters, expected 1 to 256"),
    "a frame that is a list": (changed(front=[[0]]), "'observation/front' is list, expected an array"),
    "a frame of another size": (
        changed(front=np.zeros((64, 96, 3), np.uint8)),
        "camera 'front' gives torch.uint8 (1, 64, 96, 3), expected torch.uint8 (B, 32, 48, 3)",
    ),
    "a frame of floats": (changed(wrist=np.zeros((16, 16, 3), np.float32)), "camera 'wrist' gives torch.float32"),
    "a frame without colours": (
        changed(wrist=np.zeros((16, 16), np.uint8)),
        "camera 'wrist' gives torch.uint8 (1, 16, 16)",
    ),
    "a short state": (changed(state=np.zeros(3, np.float32)), "the state has shape (1, 3), expected (B, 4)"),
    "a state in rows": (changed(state=np.zeros((1, 4), np.float32)), "the state has shape (1, 1, 4), expected (B, 4)"),
    "a state with NaN": (
        changed(state=np.array([0, np.nan, 0, np.inf])),
        "the state has numbers that are not finite: y, opening",
    ),
    "a state beyond float32": (
        changed(state=np.array([0, 0, 1e300, 0])),
        "the state has numbers that are not finite: z",
    ),
}


@contextlib.contextmanager
def watched(limits: LimitsConfig = PATIENT) -> Generator[tuple[str, PolicyServer]]:
    """A server that must have no tasks or state left when its clients have disconnected."""
    server = PolicyServer(tiny_policy(), ServerConfig(port=0, limits=limits), EXECUTE_STEPS)
    with running(server) as url:
        yield url, server
        with client(url) as connection:
            assert_array_equal(infer(connection, said(5)), in_process(tiny_policy(), 5))
            assert settled(url) == 1
    assert not server._inference._index, "a client's episode was kept"
    assert not server._inference._policy._policy._episodes, "a client's episode was kept"


@pytest.mark.parametrize("case", BAD)
def test_an_invalid_observation_is_refused_with_a_message(case: str) -> None:
    observation, message = BAD[case]
    with served() as url, client(url) as connection:
        connection.send(openpi.pack(observation))
        answer = connection.recv(timeout=30)
        assert isinstance(answer, str)
        assert answer.startswith(message)


def spoilt(number: int, whole: bytes) -> bytes:
    """Random bytes, or a valid message with some bytes changed, or truncated."""
    rng = np.random.default_rng(number)
    if number % 3 == 0:
        return rng.bytes(int(rng.integers(0, 200)))
    message = bytearray(whole)
    for at in rng.integers(0, 200 if number % 2 else len(message), 3):
        message[at] = rng.integers(0, 256)
    return bytes(message[: rng.integers(1, len(message))] if number % 3 == 1 else message)


def test_1000_invalid_messages_do_not_affect_another_client() -> None:
    here, observation = tiny_policy(), openpi.pack(said(0))
    step = msgpack.packb({"type": "observation", "payload": seen(0), "seq": 1})
    with watched() as (url, _), client(url) as good, connect(url + "/vla-eval", open_timeout=None) as patient:
        for number in range(500):
            patient.send(spoilt(number, step))
            assert msgpack.unpackb(patient.recv(timeout=30))["type"] in ("action", "error", "hello")
            with client(url) as bad:
                bad.send(spoilt(number, observation))
                assert bad.recv(timeout=30)
            if number % 50 == 0:
                assert_array_equal(infer(good, said(number)), in_process(here, number))


def test_garbage_instead_of_a_handshake_ends_only_its_connection() -> None:
    rng = np.random.default_rng(0)
    with watched() as (url, _):
        address = urlsplit(url)
        for size in (0, 1, 10, 10_000):
            with socket.create_connection((address.hostname, address.port)) as raw:
                raw.sendall(rng.bytes(size))


def test_the_state_of_a_vanished_client_is_dropped() -> None:
    with watched() as (url, server):
        connection = connect(url, ping_interval=None, open_timeout=None).__enter__()
        connection.recv(timeout=30)
        infer(connection, said(0))
        assert server._inference._index
        connection.socket.shutdown(socket.SHUT_RDWR)


def test_a_client_that_answers_no_ping_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.serve.server._PING_INTERVAL_S", 0.2)
    with watched(HASTY) as (url, _):
        address = urlsplit(url)
        with socket.create_connection((address.hostname, address.port)) as raw:
            raw.sendall(handshake(address.netloc))
            while raw.recv(65536):  # until the server gives up; a ping in between is not answered
                pass


def test_a_client_that_does_not_read_is_disconnected() -> None:
    request = frame(msgpack.packb({"type": "hello", "payload": {}, "seq": 1}))  # the answer is far longer
    with watched(HASTY) as (url, _):
        address = urlsplit(url)
        with socket.socket() as raw:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            raw.connect((address.hostname, address.port))
            raw.sendall(handshake(address.netloc, "/vla-eval"))
            raw.settimeout(60)
            with pytest.raises(ConnectionError):
                raw.sendall(request * 200_000)  # more than the buffers on the way hold of the answers


def test_an_incomplete_message_affects_no_other_client() -> None:
    request = frame(openpi.pack(said(0)))
    with watched() as (url, _), client(url) as good:
        address = urlsplit(url)
        with socket.create_connection((address.hostname, address.port)) as raw:
            raw.sendall(handshake(address.netloc) + request[: len(request) // 2])
            for seed in range(3):
                assert_array_equal(infer(good, said(seed)), in_process(tiny_policy(), seed))


def test_a_client_that_disconnects_during_inference_affects_no_other() -> None:
    here = tiny_policy()
    with watched() as (url, _), client(url) as good:
        for seed in range(20):
            with client(url) as leaving:
                leaving.send(openpi.pack(said(seed)))
                leaving.socket.shutdown(socket.SHUT_RDWR)
            actions = infer(good, said(seed))
            np.testing.assert_allclose(actions, in_process(here, seed), atol=0.02)


def test_tasks_of_disconnected_clients_end() -> None:
    server = PolicyServer(tiny_policy(), ServerConfig(), EXECUTE_STEPS)

    async def count() -> tuple[int, int]:
        async with server.listening() as url:
            before = len(asyncio.all_tasks())
            await asyncio.to_thread(come_and_go, url)
            until_s = time.monotonic() + 60
            while len(asyncio.all_tasks()) > before and time.monotonic() < until_s:
                await asyncio.sleep(0.02)
            return before, len(asyncio.all_tasks())

    def come_and_go(url: str) -> None:
        for seed in range(20):
            with client(url) as connection:
                infer(connection, said(seed))

    before, after = asyncio.run(count())
    assert after == before


def handshake(host: str, path: str = "/") -> bytes:
    return (
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()


def frame(payload: bytes) -> bytes:
    """A masked binary frame; the mask changes nothing."""
    length = bytes([0x80 | 127]) + len(payload).to_bytes(8, "big")
    return b"\x82" + length + bytes(4) + payload


def test_a_truncated_frame_ends_its_connection_with_a_protocol_error() -> None:
    with watched() as (url, _):
        address = urlsplit(url)
        with socket.create_connection((address.hostname, address.port)) as raw:
            raw.sendall(handshake(address.netloc) + b"\x82\xfe")
        with client(url) as connection:
            connection.socket.sendall(b"\xff\xff\xff")  # reserved bits and an opcode that does not exist
            with pytest.raises(ConnectionClosed):
                connection.recv(timeout=30)
