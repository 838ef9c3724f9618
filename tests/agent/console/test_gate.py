"""Pages of other origins may not connect."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import viser
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.typing import Origin, Subprotocol

from agent.console.gate import is_own, refuse_strangers

HOST = "127.0.0.1"


@pytest.mark.parametrize(
    ("origin", "asked_for", "own"),
    [
        (None, "127.0.0.1:8080", True),
        ("http://127.0.0.1:8080", "127.0.0.1:8080", True),
        ("http://localhost:8080", "localhost:8080", True),
        ("http://[::1]:8080", "[::1]:8080", True),
        ("http://192.168.1.7:8080", "192.168.1.7:8080", True),
        ("https://stranger.example", "127.0.0.1:8080", False),
        ("http://127.0.0.1:9999", "127.0.0.1:8080", False),
        ("null", "127.0.0.1:8080", False),
        ("http://stranger.example:8080", "stranger.example:8080", False),
    ],
)
def test_a_page_served_from_this_address_may_connect(origin: str | None, asked_for: str, own: bool) -> None:
    assert is_own(origin, asked_for, HOST) == own


def test_the_configured_host_name_is_accepted() -> None:
    assert is_own("http://arm.lab:80", "arm.lab:80", "arm.lab")


@pytest.fixture
def server() -> Iterator[viser.ViserServer]:
    server = viser.ViserServer(host=HOST, port=0, verbose=False)
    refuse_strangers(server, HOST)
    yield server
    server.stop()


def test_a_foreign_page_is_disconnected_before_the_first_message(server: viser.ViserServer) -> None:
    address = f"{HOST}:{server.get_port()}"
    protocol = Subprotocol(f"viser-v{viser.__version__}")
    with connect(f"ws://{address}", subprotocols=[protocol], origin=Origin(f"http://{address}")) as connection:
        assert connection.recv(timeout=60)
    strange = connect(f"ws://{address}", subprotocols=[protocol], origin=Origin("http://stranger.example"))
    with strange as connection, pytest.raises(ConnectionClosed):
        connection.recv(timeout=60)
