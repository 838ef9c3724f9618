"""Websocket servers of which a test says what they answer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from websockets.sync.server import ServerConnection, serve


@contextmanager
def peer(handler: Callable[[ServerConnection], Any], port: int = 0) -> Generator[str]:
    """The URL of a websocket server with that handler; at the end its connections are closed."""
    clients: list[ServerConnection] = []

    def handle(connection: ServerConnection) -> None:
        clients.append(connection)
        handler(connection)

    with serve(handle, "127.0.0.1", port, compression=None, max_size=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        finally:
            server.shutdown()
            for client in clients:
                client.close()
            thread.join(timeout=30)
