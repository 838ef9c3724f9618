"""Connections: a websocket connection for each world to a server that may come and go.

Requests of several worlds are sent before the first answer is read, so that a server can batch them.
"""

from __future__ import annotations

import math
import socket
import ssl
import struct
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidStatus
from websockets.sync.client import connect
from websockets.sync.connection import Connection

from envs.errors import UserError

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0
_QUIET_S = 1.0
"""Retrying for so long is not reported."""
_AWAY = (502, 503, 504)
"""Statuses of a full server, or of a proxy without its server."""
_GOODBYE_S = 1.0
"""Timeout for closing a connection."""
_TOO_BIG = 1009
"""Close code of a message above the server's size limit; retrying would not help."""


class WrongServerError(ConnectionError):
    """Another server or protocol answers; retrying would not help."""


class Connections:
    """Connections by world, made when they are first used and again when they are broken."""

    def __init__(
        self,
        url: str,
        greet: Callable[[int, Connection], None],
        *,
        api_key: str | None = None,
        timeout_s: float = 30.0,
        patience_s: float = 60.0,
        waits: Callable[[Exception], None] | None = None,
        **options: Any,
    ) -> None:
        """
        Args:
            url: ws://HOST:PORT or wss://HOST:PORT.
            greet: called with the world and each new connection; speaks the protocol's beginning.
            api_key: what the server's --api-key-file holds.
            timeout_s: timeout of an answer, after which its connection counts as broken.
            patience_s: how long to retry a server that cannot be reached. Once it was retried for so long, it is tried
                once each time, until it is reached again.
            waits: called once, with why the server could not be reached, before more than a second of retrying.
            options: of websockets' connect, e.g. `ssl`.

        Raises:
            UserError: the URL is not a websocket's, or a time is not a finite number above 0.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("ws", "wss") or not parts.hostname:
            raise UserError(f"{url!r} is no URL of a websocket, expected ws://HOST:PORT or wss://HOST:PORT")
        for name, seconds in (("timeout_s", timeout_s), ("patience_s", patience_s)):
            if not 0 < seconds < math.inf:
                raise UserError(f"{name} is {seconds}, expected a finite number of seconds above 0")
        self.url = url
        self.timeout_s = timeout_s
        self._greet = greet
        self._patience_s = patience_s
        self._headers = {} if api_key is None else {"Authorization": f"Api-Key {api_key}"}
        self._options: dict[str, Any] = {"close_timeout": _GOODBYE_S, "open_timeout": timeout_s} | options
        self._open: dict[int, Connection] = {}
        self._closed = False
        self._given_up = False
        self._waits = waits

    def ask(self, requests: Mapping[int, bytes]) -> tuple[dict[int, bytes | str], dict[int, Exception]]:
        """Send every world's request, then read the answers; after a broken connection the request is sent again.

        Returns:
            {world: answer}, and for the others {world: UserError or ConnectionError}.
        """
        answers: dict[int, bytes | str] = {}
        errors: dict[int, Exception] = {}
        deadline_s = time.monotonic() + self._patience_s
        try:
            for world, request in requests.items():
                try:
                    self.open(world).send(request)
                except (ConnectionClosed, TimeoutError):
                    self.drop(world)  # _answer reconnects
                except (ConnectionError, UserError) as error:
                    errors[world] = error
            for world, request in requests.items():
                if world in errors:
                    continue
                try:
                    answers[world] = self._answer(world, request, deadline_s)
                except (ConnectionError, UserError) as error:
                    errors[world] = error
        except BaseException:
            for world in requests:  # an unread answer would be taken for the next observation's
                self.drop(world)
            raise
        return answers, errors

    def tell(self, world: int, message: bytes) -> None:
        """Send a message that has no answer, if the world has a connection."""
        if (connection := self._open.get(world)) is not None:
            try:
                connection.send(message)
            except (ConnectionClosed, TimeoutError):
                self.drop(world)

    def drop(self, world: int) -> None:
        """Close the world's connection, if it has one."""
        if (connection := self._open.pop(world, None)) is not None:
            connection.close()

    def close(self) -> None:
        """Close all connections; a thread that waits for an answer then gets a ConnectionError."""
        self._closed = True
        connections, self._open = self._open, {}
        for connection in connections.values():
            connection.close()

    def open(self, world: int) -> Connection:
        """The world's connection; a new one is made with exponential backoff, and greeted.

        Raises:
            ConnectionError: the server cannot be reached, refuses this client or speaks another protocol.
            UserError: the server refuses what `greet` sends.
        """
        if (known := self._open.get(world)) is not None:
            return known
        patience_s = 0.0 if self._given_up else self._patience_s
        deadline_s, pause_s = time.monotonic() + patience_s, _FIRST_PAUSE_S
        while True:
            if self._closed:
                raise ConnectionError(f"the connections to {self.url} were closed")
            connection, trouble = self._try_to_open(world)
            if connection is not None:
                self._open[world] = connection
                self._given_up = False
                if not self._closed:
                    return connection
                self.drop(world)  # `close` came meanwhile
                continue
            if time.monotonic() + pause_s > deadline_s:
                self._given_up = True
                raise ConnectionError(
                    f"{self.url} cannot be reached: {trouble}; start its server, or correct the address"
                ) from trouble
            if self._waits is not None and deadline_s - time.monotonic() > _QUIET_S:
                assert trouble is not None, "there is no connection"
                self._waits(trouble)
                self._waits = None
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _try_to_open(self, world: int) -> tuple[Connection | None, Exception | None]:
        """A greeted connection, or what a later try may not meet.

        Raises:
            ConnectionError: a later try would not help.
        """
        try:
            return self._connected(world), None
        except WrongServerError:
            raise
        except InvalidStatus as error:
            if error.response.status_code not in _AWAY:
                reason = (error.response.body or b"").decode(errors="replace").strip()
                raise ConnectionError(f"{self.url} refuses this client: {error}; {reason}") from error
            return None, error
        except InvalidMessage as error:
            if isinstance(error.__cause__, ValueError):  # the answer was not HTTP/1.1
                raise ConnectionError(f"{self.url} speaks no websocket: {error.__cause__}") from error
            return None, error
        except ssl.SSLCertVerificationError as error:
            raise ConnectionError(
                f"the certificate of {self.url} is not trusted: {error.verify_message}; the environment variable "
                "SSL_CERT_FILE names a file of certificates to trust, e.g. the server's own"
            ) from error
        except (OSError, ConnectionClosed) as error:  # a proxy may close at once
            return None, error
        except InvalidHandshake as error:
            raise ConnectionError(f"{self.url} speaks no websocket: {error}") from error

    def _connected(self, world: int) -> Connection:
        with ExitStack() as stack:
            connection = stack.enter_context(
                connect(self.url, additional_headers=self._headers, compression=None, max_size=None, **self._options)
            )
            _limit_sending(connection.socket, self.timeout_s)
            self._greet(world, connection)
            stack.pop_all()  # keeps the connection open
        return connection

    def _answer(self, world: int, request: bytes, deadline_s: float) -> bytes | str:
        while True:
            try:
                connection = self._open.get(world)
                if connection is None:
                    connection = self.open(world)
                    connection.send(request)
                # After the deadline, which the batch shares, an answer that is already here is still taken.
                return connection.recv(self.timeout_s if time.monotonic() < deadline_s else _FIRST_PAUSE_S)
            except (ConnectionClosed, TimeoutError) as error:
                self.drop(world)
                if isinstance(error, ConnectionClosed) and error.rcvd is not None and error.rcvd.code == _TOO_BIG:
                    raise UserError(f"{self.url} takes no message of {len(request)} bytes") from error
                if time.monotonic() > deadline_s:
                    raise ConnectionError(f"{self.url} gave no answer for {self._patience_s:g} s") from error
                time.sleep(_FIRST_PAUSE_S)


def _limit_sending(connected: socket.socket, timeout_s: float) -> None:
    """Set a send timeout, so that a server that reads nothing does not block `send` for ever."""
    limit = struct.pack("ll", int(timeout_s), int(timeout_s % 1 * 1e6))
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
