"""The server's rate-limited log of refusals and failures, by client.

At most LINES of a kind in PERIOD_S, and the number of suppressed ones, so that a faulty or malicious client fills
neither disk nor memory. Text from a client is shortened and made printable.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

_LOG = logging.getLogger(__name__)

LINES = 10
PERIOD_S = 60.0
_MAX_CHARS = 500

Kind = Literal["not admitted", "refused", "failed", "cut off"]
"""A connection not admitted, a message refused, a message on which the server failed, a connection closed by it."""


@dataclass
class _Period:
    began_s: float
    written: int = 0
    left_out: int = 0


class Notices:
    """The log of one server."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._periods: dict[Kind, _Period] = {}

    def say(self, kind: Kind, client: str, text: str, error: Exception | None = None) -> None:
        """Log a line, unless the limit of its kind is reached.

        Args:
            error: a failure of the server, logged with its traceback.
        """
        now_s = self._clock()
        period = self._periods.get(kind)
        if period is None or now_s - period.began_s >= PERIOD_S:
            self._say_left_out(kind)
            period = self._periods[kind] = _Period(began_s=now_s)
        if period.written == LINES:
            period.left_out += 1
            return
        period.written += 1
        level = logging.WARNING if error is None else logging.ERROR
        _LOG.log(level, "%s: client %s: %s", kind, client, _printable(text), exc_info=error)

    def close(self) -> None:
        """Log the numbers of suppressed lines."""
        for kind in self._periods:
            self._say_left_out(kind)
        self._periods.clear()

    def _say_left_out(self, kind: Kind) -> None:
        if (period := self._periods.get(kind)) is not None and period.left_out:
            _LOG.warning("%s: %d more within %d s were not written here", kind, period.left_out, int(PERIOD_S))


def address(remote: object) -> str:
    """HOST:PORT of a socket's peer, as `getpeername` gives it."""
    if not isinstance(remote, tuple) or len(remote) < 2:
        return "unknown"  # it has disconnected
    host, port = remote[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _printable(text: str) -> str:
    """One line without control characters."""
    short = text if len(text) <= _MAX_CHARS else text[:_MAX_CHARS] + "..."
    return "".join(char if char.isprintable() else " " for char in short)
