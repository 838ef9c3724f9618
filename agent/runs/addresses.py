"""Whether an address can be listened on, asked before anything that takes time."""

from __future__ import annotations

import socket

from envs.errors import UserError


def check_address(host: str, port: int) -> None:
    """
    Args:
        host: address or name.
        port: 0 for any.

    Raises:
        UserError: it is none of this machine's, or the port is in use or not for this user.
    """
    try:
        for family, kind, protocol, _, place in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            with socket.socket(family, kind, protocol) as probe:
                # As servers do: what a server that ended left in TIME_WAIT is none that listens.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(place)
    except OSError as error:
        raise UserError(cannot_listen(host, port, error)) from error


def cannot_listen(host: str, port: int, error: OSError) -> str:
    """Why not, in words."""
    return f"nothing can be served on {host}, port {port}: {error.strerror or error}"
