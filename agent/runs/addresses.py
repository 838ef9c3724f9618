"""Checks that a server can listen on an address, before anything that takes time."""

from __future__ import annotations

import socket

from envs.errors import UserError


def check_address(host: str, port: int) -> None:
    """
    Args:
        port: 0 for any.

    Raises:
        UserError: the address is not this machine's, or the port is in use or needs other permissions.
    """
    try:
        for family, kind, protocol, _, place in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            with socket.socket(family, kind, protocol) as probe:
                # As servers do: a port in TIME_WAIT after its server ended is free.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(place)
    except OSError as error:
        raise UserError(cannot_listen(host, port, error)) from error


def cannot_listen(host: str, port: int, error: OSError) -> str:
    """The error message."""
    return (
        f"nothing can be served on {host}, port {port}: {error.strerror or error}; name others with --host and --port"
    )
