"""Pages of strangers may not connect."""

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
def test_a_page_is_own_if_this_address_gave_it_out(origin: str | None, asked_for: str, own: bool) -> None:
    assert is_own(origin, asked_for, HOST) == own


def test_the_name_that_the_server_was_told_to_listen_on_is_its_own() -> None:
    assert is_own("http://arm.lab:80", "arm.lab:80", "arm.lab")


@pytest.fixture
def server() -> Iterator[viser.ViserServer]:
    server = viser.ViserServer(host=HOST, port=0, verbose=False)
    refuse_strangers(server, HOST)
    yield server
    server.stop()


def test_a_stranger_s_page_is_cut_off_before_it_hears_or_says_a_word(server: viser.ViserServer) -> None:
    address = f"{HOST}:{server.get_port()}"
    protocol = Subprotocol(f"viser-v{viser.__version__}")
    with connect(f"ws://{address}", subprotocols=[protocol], origin=Origin(f"http://{address}")) as connection:
        assert connection.recv(timeout=10)
    strange = connect(f"ws://{address}", subprotocols=[protocol], origin=Origin("http://stranger.example"))
    with strange as connection, pytest.raises(ConnectionClosed):
        connection.recv(timeout=10)
