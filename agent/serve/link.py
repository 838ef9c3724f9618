"""Link: one client's connection, with the limits that hold for every client."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Interval
from websockets.asyncio.server import ServerConnection

from agent.serve.metrics import Metrics
from agent.serve.notices import Notices, address
from envs.errors import UserError


@dataclass(frozen=True, kw_only=True)
class LimitsConfig:
    """What a client may ask of the server."""

    max_clients: Annotated[int, Interval(ge=1, le=10_000)] = 32
    """Connections at a time; another one is refused with HTTP status 503."""
    max_message_mb: Annotated[float, Interval(gt=0, le=2000)] = 16.0
    """Megabytes of one message; a longer one closes the connection with code 1009."""
    max_rate_hz: Annotated[float, Interval(gt=0, le=1e9)] = 200.0
    """Messages per second and client; a faster client waits."""
    send_timeout_s: Annotated[float, Interval(gt=0, le=86_400)] = 5.0
    """A client that does not read its answers for that long is cut off."""
    ping_timeout_s: Annotated[float, Interval(gt=0, le=86_400)] = 120.0
    """A client that does not answer a ping for that long is cut off: it is gone without a word, or it hangs."""
    hello_timeout_s: Annotated[float, Interval(gt=0, le=86_400)] = 10.0
    """A client of vla-eval's protocol that says no hello for that long is told so and cut off: it speaks another."""


class Link:
    """Messages to and from one client."""

    def __init__(
        self,
        connection: ServerConnection,
        path: str,
        limits: LimitsConfig,
        metrics: Metrics,
        notices: Notices,
        debug: bool,
    ) -> None:
        """
        Args:
            connection: of the client.
            path: that it asked for.
            limits: that hold for it.
            metrics: where its messages are counted.
            notices: where the log learns what is refused.
            debug: whether the client may see tracebacks.
        """
        self._connection = connection
        self._path = path
        self.limits = limits
        self._metrics = metrics
        self._notices = notices
        self._debug = debug
        self._next_s = 0.0

    async def receive(self, within_s: float | None = None) -> bytes | str:
        """The next message, not before the client's rate allows it.

        Args:
            within_s: how long to wait for it; as long as the client is there where None.

        Raises:
            websockets.ConnectionClosed: there is none.
            TimeoutError: it did not come in that time.
        """
        await asyncio.sleep(max(0.0, self._next_s - time.monotonic()))
        self._next_s = time.monotonic() + 1.0 / self.limits.max_rate_hz
        async with asyncio.timeout(within_s):
            return await self._connection.recv()

    async def send(self, message: bytes | str) -> None:
        """Send, or give the client up."""
        try:
            async with asyncio.timeout(self.limits.send_timeout_s):
                await self._connection.send(message)
        except TimeoutError:
            self._give_up()

    async def close(self, code: int, reason: str) -> None:
        """Say goodbye, or give the client up."""
        try:
            async with asyncio.timeout(self.limits.send_timeout_s):
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
        except UserError:
            outcome = "refused"
            raise
        finally:
            self._metrics.request(self._path, outcome, time.perf_counter() - began_s)

    def explain(self, error: Exception) -> str:
        """What the client is told: why its message is refused; of an error of ours, no more than that there was one."""
        if not isinstance(error, UserError):
            self._notices.say("failed", self._address, f"a message on {self._path}", error)
        else:
            self._notices.say("refused", self._address, f"a message on {self._path}: {error}")
        if self._debug:
            return "".join(traceback.format_exception(error))
        return str(error) if isinstance(error, UserError) else "internal error, which the server's log describes"

    def _give_up(self) -> None:
        self.say_cut_off("it does not read its answers")
        self._connection.transport.abort()

    def say_cut_off(self, why: str) -> None:
        """Log that the client's connection ends by us."""
        self._notices.say("cut off", self._address, f"on {self._path}: {why}")

    @property
    def _address(self) -> str:
        return address(self._connection.remote_address)
