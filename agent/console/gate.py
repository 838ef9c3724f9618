"""Who may connect to the page's websocket: pages that this server gave out.

A browser lets any site open a websocket to 127.0.0.1, and says in `Origin` which site it is. viser serves whoever asks,
so without this a page of a stranger could drive the robot of whoever looks at it.
"""

from __future__ import annotations

import ipaddress
from typing import Any
from urllib.parse import urlsplit

import viser


def refuse_strangers(server: viser.ViserServer, host: str) -> None:
    """Refuse connections from pages of other sites before a word of theirs is heard.

    Args:
        server: without clients.
        host: the address that it listens on.
    """
    # viser has no hook before the first message, its connections do.
    connections = server._websock_server

    def check(client: Any) -> None:
        request = connections._live_connections[client.client_id].request
        assert request is not None, "a connection begins with one"
        headers = request.headers
        if not is_own(headers.get("Origin"), headers.get("Host", ""), host):
            raise PermissionError(f"a page of {headers.get('Origin')} may not connect to {headers.get('Host')}")

    connections.on_client_connect(check)


def is_own(origin: str | None, asked_for: str, host: str) -> bool:
    """Whether a page is one of this server's.

    Args:
        origin: the header that says where the page came from; programs send none, and may connect.
        asked_for: the header `Host`.
        host: that the server was told to listen on.
    """
    if origin is None:
        return True
    page, server = urlsplit(origin), urlsplit(f"//{asked_for}")
    return page.netloc == server.netloc and _is_address(server.hostname or "", host)


def _is_address(name: str, host: str) -> bool:
    """Whether a name cannot be a stranger's that was made to point here."""
    if name in ("localhost", host):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
