"""Link: one client's connection, with the limits that hold for every client."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

from websockets.asyncio.server import ServerConnection

from agent.serve.metrics import Metrics

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LimitsConfig:
    """What a client may ask of the server."""

    max_clients: int = 32
    """Connections at a time; another one is refused with HTTP status 503."""
    max_message_mb: float = 16.0
    """Megabytes of one message; a longer one closes the connection with code 1009."""
    max_rate_hz: float = 200.0
    """Messages per second and client; a faster client waits."""
    send_timeout_s: float = 5.0
    """A client that does not read its answers for that long is cut off."""
    ping_timeout_s: float = 120.0
    """A client that does not answer a ping for that long is cut off: it is gone without a word, or it hangs."""


class Link:
    """Messages to and from one client."""

    def __init__(
        self, connection: ServerConnection, path: str, limits: LimitsConfig, metrics: Metrics, debug: bool
    ) -> None:
        """
        Args:
            debug: whether the client may see tracebacks.
        """
        self._connection = connection
        self._path = path
        self._limits = limits
        self._metrics = metrics
        self._debug = debug
        self._next_s = 0.0

    async def receive(self) -> bytes | str:
        """The next message, not before the client's rate allows it.

        Raises:
            websockets.ConnectionClosed: there is none.
        """
        await asyncio.sleep(max(0.0, self._next_s - time.monotonic()))
        self._next_s = time.monotonic() + 1.0 / self._limits.max_rate_hz
        return await self._connection.recv()

    async def send(self, message: bytes | str) -> None:
        """Send, or give the client up."""
        try:
            async with asyncio.timeout(self._limits.send_timeout_s):
                await self._connection.send(message)
        except TimeoutError:
            self._give_up()

    async def close(self, code: int, reason: str) -> None:
        """Say goodbye, or give the client up."""
        try:
            async with asyncio.timeout(self._limits.send_timeout_s):
                await self._connection.close(code, reason)
        except TimeoutError:
            self._give_up()

    @contextmanager
    def measured(self) -> Generator[None]:
        """Count a request, and how long it takes."""
        began_s = time.perf_counter()
        outcome = "failed"
        try:
            yield
            outcome = "answered"
        except ValueError:
            outcome = "refused"
            raise
        finally:
            self._metrics.request(self._path, outcome, time.perf_counter() - began_s)

    def explain(self, error: Exception) -> str:
        """What the client is told: why its message is refused; of an error of ours, no more than that there was one."""
        if not isinstance(error, ValueError):
            _LOG.error("a request on %s failed", self._path, exc_info=error)
        if self._debug:
            return "".join(traceback.format_exception(error))
        return str(error) if isinstance(error, ValueError) else "internal error, which the server's log describes"

    def _give_up(self) -> None:
        _LOG.warning("a client on %s does not read its answers and is cut off", self._path)
        self._connection.transport.abort()
