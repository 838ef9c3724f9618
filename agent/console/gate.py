"""Origin check of the page's websocket: only pages of this server may connect.

Browsers let any site open a websocket to 127.0.0.1, with the site in the `Origin` header. viser does not check it, so
without this a foreign web page could drive the robot.
"""

from __future__ import annotations

import ipaddress
from typing import Any
from urllib.parse import urlsplit

import viser


def refuse_strangers(server: viser.ViserServer, host: str) -> None:
    """Refuse connections from pages of other sites, before their first message.

    Args:
        server: without clients.
        host: the address that it listens on.
    """
    # viser itself has no hook before the first message.
    connections = server._websock_server

    def check(client: Any) -> None:
        request = connections._live_connections[client.client_id].request
        assert request is not None, "a connection begins with one"
        headers = request.headers
        if not is_own(headers.get("Origin"), headers.get("Host", ""), host):
            raise PermissionError(f"a page of {headers.get('Origin')} may not connect to {headers.get('Host')}")

    connections.on_client_connect(check)


def is_own(origin: str | None, asked_for: str, host: str) -> bool:
    """Whether a page was served by this server.

    Args:
        origin: the header `Origin`; programs send none, and may connect.
        asked_for: the header `Host`.
        host: the address that the server listens on.
    """
    if origin is None:
        return True
    page, server = urlsplit(origin), urlsplit(f"//{asked_for}")
    return page.netloc == server.netloc and _is_address(server.hostname or "", host)


def _is_address(name: str, host: str) -> bool:
    """Whether a name is an address or this host, and not a foreign domain that resolves here (DNS rebinding)."""
    if name in ("localhost", host):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
