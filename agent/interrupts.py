"""Ctrl-C, and SIGTERM, which is what schedulers send: both stop a command, and wait for the end of what is half done.

A signal that whoever started the process wants ignored (a shell does so to SIGINT of what it runs in the background)
stays ignored.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

_STOPPING = (signal.SIGINT, signal.SIGTERM)


class Terminated(KeyboardInterrupt):
    """SIGTERM came."""


@contextmanager
def sigterm_stops() -> Generator[None]:
    """SIGTERM raises Terminated in the main thread, as Ctrl-C raises KeyboardInterrupt."""
    came: list[int] = []

    def terminate(number: int, frame: FrameType | None) -> None:
        del frame
        came.append(number)
        raise Terminated

    with _handled((signal.SIGTERM,), terminate), _told_apart(came):
        yield


@contextmanager
def interrupts_wait() -> Generator[Callable[[], bool]]:
    """Ctrl-C or SIGTERM while an update is half done waits for its end; a second one does not.

    Yields a function that says whether there was one.
    """
    came: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        del frame
        came.append(number)
        for other, handler in before.items():
            signal.signal(other, handler)

    with _handled(_STOPPING, remember) as before, _told_apart(came):
        yield lambda: bool(came)


@contextmanager
def _told_apart(came: list[int]) -> Generator[None]:
    """A KeyboardInterrupt after SIGTERM leaves as Terminated, whatever library raised it anew: Ray does."""
    try:
        yield
    except KeyboardInterrupt:
        if signal.SIGTERM in came:
            raise Terminated from None
        raise


Handler = Callable[[int, FrameType | None], object] | int | None


@contextmanager
def _handled(
    numbers: tuple[signal.Signals, ...], handler: Callable[[int, FrameType | None], None]
) -> Generator[dict[signal.Signals, Handler]]:
    """Those of the signals that are not ignored, until the end; yields what handled them before. Only the main thread
    can.
    """
    before: dict[signal.Signals, Handler] = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in numbers}
        # What was not set from Python cannot be set again from there.
        before = {number: old for number, old in before.items() if old not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, handler)
    try:
        yield before
    finally:
        for number, old in before.items():
            signal.signal(number, old)
