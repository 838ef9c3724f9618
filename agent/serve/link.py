"""Link: one client's connection, with the limits of every client."""

from __future__ import annotations

import asyncio
import time
import traceback
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Interval
from websockets.asyncio.server import ServerConnection

from agent.serve.metrics import Metrics
from agent.serve.notices import Notices, address
from envs.errors import UserError


@dataclass(frozen=True, kw_only=True)
class LimitsConfig:
    """Limits of each client."""

    max_clients: Annotated[int, Interval(ge=1, le=10_000)] = 32
    """Connections at a time; another one is refused with HTTP status 503."""
    max_message_mb: Annotated[float, Interval(gt=0, le=2000)] = 16.0
    """Megabytes of one message; a longer one closes the connection with code 1009."""
    max_rate_hz: Annotated[float, Interval(gt=0, le=1e9)] = 200.0
    """Messages per second and client; a faster client waits."""
    send_timeout_s: Annotated[float, Interval(gt=0, le=86_400)] = 5.0
    """Timeout for a client to read its answers, after which its connection is closed."""
    ping_timeout_s: Annotated[float, Interval(gt=0, le=86_400)] = 120.0
    """Timeout for a client to answer a ping, after which its connection is closed."""
    hello_timeout_s: Annotated[float, Interval(gt=0, le=86_400)] = 10.0
    """Timeout of a vla-eval client's hello, after which an error is sent and the connection closed."""


@dataclass
class Link:
    """Messages to and from one client."""

    connection: ServerConnection
    path: str
    """Of the request."""
    limits: LimitsConfig
    metrics: Metrics
    notices: Notices
    debug: bool
    """Send tracebacks to the client."""
    _next_s: float = 0.0

    async def receive(self, within_s: float | None = None) -> bytes | str:
        """The next message, not before the client's rate allows it.

        Args:
            within_s: timeout; None waits until the client disconnects.

        Raises:
            websockets.ConnectionClosed: the client has disconnected.
            TimeoutError: no message within the timeout.
        """
        await asyncio.sleep(max(0.0, self._next_s - time.monotonic()))
        self._next_s = time.monotonic() + 1.0 / self.limits.max_rate_hz
        async with asyncio.timeout(within_s):
            return await self.connection.recv()

    async def send(self, message: bytes | str) -> None:
        """Send, or abort the connection on timeout."""
        try:
            async with asyncio.timeout(self.limits.send_timeout_s):
                await self.connection.send(message)
        except TimeoutError:
            self._give_up()

    async def close(self, code: int, reason: str) -> None:
        """Close the connection, or abort it on timeout."""
        try:
            async with asyncio.timeout(self.limits.send_timeout_s):
                await self.connection.close(code, reason)
        except TimeoutError:
            self._give_up()

    def measured(self) -> AbstractContextManager[None]:
        """Count a request, with its duration."""
        return self.metrics.request(self.path)

    def explain(self, error: Exception) -> str:
        """The error message for the client: why its message is refused, or without details that the server failed."""
        if not isinstance(error, UserError):
            self.notices.say("failed", self._address, f"a message on {self.path}", error)
        else:
            self.notices.say("refused", self._address, f"a message on {self.path}: {error}")
        if self.debug:
            return "".join(traceback.format_exception(error))
        return str(error) if isinstance(error, UserError) else "internal error, which the server's log describes"

    def _give_up(self) -> None:
        self.say_cut_off("it does not read its answers")
        self.connection.transport.abort()

    def say_cut_off(self, why: str) -> None:
        """Log that the server closes the client's connection."""
        self.notices.say("cut off", self._address, f"on {self.path}: {why}")

    @property
    def _address(self) -> str:
        return address(self.connection.remote_address)
