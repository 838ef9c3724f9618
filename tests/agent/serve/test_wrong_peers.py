"""Timeouts and errors for wrong, silent or stuck peers, each a real one on 127.0.0.1."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import msgpack
import numpy as np
import pytest
from peers import peer
from serving import client, served
from test_vla_eval import receive, say
from tiny_model import SENTENCES, observe
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.sync.server import ServerConnection

from agent.serve import openpi, server
from agent.serve.client import ServedPolicy
from agent.serve.link import LimitsConfig

HASTY: dict[str, Any] = {"timeout_s": 0.5, "patience_s": 0.5}
METADATA = {"server": "llamarm", "action_horizon": 2, "action_dim": 3, "n_action_steps": 2, "policy_version": 5}


def answering(answer: Callable[[], bytes | str], connection: ServerConnection) -> None:
    """A handler with openpi's protocol and a constant answer."""
    connection.send(openpi.pack(METADATA))
    with suppress(ConnectionClosed):
        while True:
            connection.recv()
            connection.send(answer())


def connected(url: str, **options: Any) -> np.ndarray:
    with ServedPolicy(url, **options) as policy:
        policy.begin([0], (SENTENCES[0],), (0,))
        return policy.act([0], observe(1)).actions


def test_a_url_of_another_path_or_scheme_is_refused_at_once() -> None:
    with served() as url:
        with pytest.raises(ValueError, match=f"speaks vla-eval's protocol; a ServedPolicy speaks openpi's.* at {url}$"):
            ServedPolicy(url + "/vla-eval")
        with pytest.raises(ValueError, match="is no URL of a websocket, expected ws://HOST:PORT"):
            ServedPolicy(url.replace("ws://", "http://"))


@pytest.mark.parametrize("name", ["timeout_s", "patience_s"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_waiting_times_must_be_finite(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} is {value}, expected a finite number of seconds above 0"):
        connected("ws://127.0.0.1:1", **{name: value})


def test_an_http_server_is_refused() -> None:
    class Newer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

    for handler, message in (
        (Newer, "refuses this client: .*HTTP 501"),
        (BaseHTTPRequestHandler, "speaks no websocket"),
    ):
        with web_pages(handler) as url, pytest.raises(ConnectionError, match=message):
            ServedPolicy(url, patience_s=600.0)


@contextmanager
def web_pages(handler: type[BaseHTTPRequestHandler]) -> Generator[str]:
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"ws://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join(timeout=30)


def test_a_silent_listener_times_out() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    with listener, pytest.raises(ConnectionError, match="cannot be reached: timed out"):
        ServedPolicy(f"ws://127.0.0.1:{listener.getsockname()[1]}", **HASTY)


def test_a_silent_websocket_times_out() -> None:
    silence = r"cannot be reached: it said nothing for 0\.5 s; openpi's servers speak first"
    with peer(lambda connection: connection.recv()) as url, pytest.raises(ConnectionError, match=silence):
        ServedPolicy(url, **HASTY)


@pytest.mark.parametrize(
    "first",
    ["welcome", b"\xc1", msgpack.packb([1, 2]), msgpack.packb({"type": "hello", "payload": {}, "seq": 0})],
    ids=["text", "garbage", "a list", "vla-eval"],
)
def test_a_server_of_another_protocol_is_refused_at_once(first: bytes | str) -> None:
    stranger = peer(lambda connection: connection.send(first))
    with stranger as url, pytest.raises(ConnectionError, match="does not speak openpi's protocol"):
        ServedPolicy(url, patience_s=600.0)


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (np.full((2, 3), np.nan, np.float32), "actions that are not finite numbers"),
        (np.full((2, 3), np.inf, np.float32), "actions that are not finite numbers"),
        (np.full((2, 3), 1e300), "actions that are not finite numbers"),
        (np.ones((2, 3), bool), r"bool \(2, 3\), expected one action or more, of numbers"),
        (np.zeros((2, 4), np.float32), r"actions of shape \(2, 4\), expected \[2, 3\]"),
        (np.zeros(3, np.float32), r"actions of shape \(3,\), expected \[2, 3\]"),
        ([0.0], "something other than actions: 'actions' is list, expected an array"),
    ],
    ids=["nan", "inf", "beyond float32", "success flags", "wide", "flat", "a list"],
)
def test_an_invalid_action_is_an_error(actions: Any, message: str) -> None:
    wrong = peer(partial(answering, lambda: openpi.pack({"actions": actions})))
    with wrong as url, pytest.raises(ConnectionError, match=f"answers with {message}"):
        connected(url)


def test_a_server_that_never_answers_times_out() -> None:
    def silent(connection: ServerConnection) -> None:
        connection.send(openpi.pack(METADATA))
        with suppress(ConnectionClosed):
            while True:
                connection.recv()

    with peer(silent) as url, pytest.raises(ConnectionError, match=r"gave no answer for 0\.5 s"):
        connected(url, **HASTY)


def test_a_server_that_closes_within_a_message_is_an_error() -> None:
    def half(connection: ServerConnection) -> None:
        connection.send(openpi.pack(METADATA))
        connection.recv()
        connection.socket.sendall(b"\x82\x7e\x10\x00half")  # the header of 4,096 bytes, and four of them
        connection.socket.shutdown(socket.SHUT_RDWR)

    with peer(half) as url, pytest.raises(ConnectionError, match=r"gave no answer|cannot be reached"):
        connected(url, **HASTY)


def test_sending_to_a_server_that_does_not_read_times_out() -> None:
    """After the handshake nobody reads, so the buffers between fill up; more than 4 MB wait to be sent."""
    ended = threading.Event()

    def deaf(connection: ServerConnection) -> None:
        connection.send(openpi.pack(METADATA))
        connection.recv_bufsize = 1
        with connection.recv_messages.mutex:  # what reads from the socket stands still
            ended.wait(timeout=600)

    with peer(deaf) as url:
        observation = observe(1)
        observation["frames"]["front"] = np.zeros((1, 4000, 4000, 3), np.uint8)
        began_s = time.monotonic()
        try:
            with ServedPolicy(url, **HASTY) as policy:
                policy.begin([0], (SENTENCES[0],), (0,))
                with pytest.raises(ConnectionError):
                    policy.act([0], observation)
        finally:
            ended.set()
        assert time.monotonic() - began_s < 300, "it would have waited for as long as nobody reads"


def test_a_server_that_returns_with_another_policy_is_refused() -> None:
    made_for = iter((2, 8, 8))

    def other(connection: ServerConnection) -> None:
        connection.send(openpi.pack(METADATA | {"n_action_steps": next(made_for)}))
        connection.recv()

    with peer(other) as url, pytest.raises(ConnectionError, match="came back with another policy"):
        connected(url, patience_s=600.0)


def test_an_openpi_client_on_vla_evals_path_gets_an_error_and_is_disconnected(caplog: pytest.LogCaptureFixture) -> None:
    """It waits for the server's first message, which in vla-eval's protocol comes second."""
    with served(limits=LimitsConfig(hello_timeout_s=0.2)) as url, connect(url + "/vla-eval") as connection:
        value = receive(connection)
        assert value["type"] == "error"
        assert value["payload"]["error"].startswith("no hello came, with which vla-eval's protocol begins; openpi's is")
        with pytest.raises(ConnectionClosed) as closed:
            connection.recv(timeout=30)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1008
    (record,) = [record for record in caplog.records if record.name.startswith("agent.")]
    assert record.getMessage().startswith("cut off: client 127.0.0.1:")


def test_a_vla_eval_client_on_openpis_path_gets_an_error() -> None:
    with served() as url, client(url) as connection:
        say(connection, "hello", {"harness_version": "0.8.0", "protocol_version": 1}, 1)
        value = connection.recv(timeout=30)
    assert str(value).startswith("this is a hello of vla-eval's protocol, which is served on the path /vla-eval; ")


def test_an_idle_connection_does_not_keep_the_server_from_stopping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_OPEN_TIMEOUT_S", 1.0)
    with served() as url:
        host, port = url.removeprefix("ws://").split(":")
        silent = socket.create_connection((host, int(port)))
        time.sleep(0.5)  # the server accepts it meanwhile
    silent.close()


def test_an_empty_chunk_is_an_error_without_metadata() -> None:
    def answer(connection: ServerConnection) -> None:
        connection.send(openpi.pack({}))
        connection.recv()
        connection.send(openpi.pack({"actions": np.zeros((0, 3), np.float32)}))

    message = r"answers with float32 \(0, 3\), expected one action or more, of numbers"
    with peer(answer) as url, pytest.raises(ConnectionError, match=message):
        connected(url)


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("history_steps", "4", "int"),
        ("history_steps", None, "int"),
        ("observation", ["front"], "dict"),
        ("n_action_steps", 2.0, "int"),
        ("action_horizon", True, "int"),
        ("policy_version", [5], "int"),
    ],
)
def test_invalid_metadata_is_refused_before_any_observation(name: str, value: Any, kind: str) -> None:
    def tell(connection: ServerConnection) -> None:
        connection.send(openpi.pack(METADATA | {name: value}))
        with suppress(ConnectionClosed):
            connection.recv()

    message = re.escape(f"says that {name} is {value!r}, expected a value of {kind}")
    with peer(tell) as url, pytest.raises(ConnectionError, match=message):
        ServedPolicy(url, **HASTY)
