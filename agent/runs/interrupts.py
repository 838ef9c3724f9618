"""Ctrl-C, SIGTERM (from schedulers) and SIGHUP (from a closed terminal) stop a command, after the update in progress.

A signal that the parent process set to be ignored (as a shell does with SIGINT of background jobs) stays ignored.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

_TERMINATING = (signal.SIGTERM, signal.SIGHUP)
STOPPING = (signal.SIGINT, *_TERMINATING)


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP came."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@contextmanager
def termination_stops() -> Generator[None]:
    """SIGTERM and SIGHUP raise Terminated in the main thread, as Ctrl-C raises KeyboardInterrupt."""
    came: list[int] = []

    def terminate(number: int, frame: FrameType | None) -> None:
        del frame
        came.append(number)
        raise Terminated(number)

    with handled(_TERMINATING, terminate), _told_apart(came):
        yield


@contextmanager
def interrupts_wait() -> Generator[Callable[[], bool]]:
    """Defer Ctrl-C or termination to the end of the update in progress; a second one is not deferred.

    Yields a function that returns whether there was one.
    """
    came: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        del frame
        came.append(number)
        for other, handler in before.items():
            signal.signal(other, handler)

    with handled(STOPPING, remember) as before, _told_apart(came):
        yield lambda: bool(came)


@contextmanager
def _told_apart(came: list[int]) -> Generator[None]:
    """Reraise a KeyboardInterrupt after SIGTERM or SIGHUP as Terminated, because Ray replaces the exception."""
    try:
        yield
    except KeyboardInterrupt:
        if terminating := [number for number in came if number in _TERMINATING]:
            raise Terminated(terminating[0]) from None
        raise


Handler = Callable[[int, FrameType | None], object] | int | None


@contextmanager
def handled(
    numbers: tuple[signal.Signals, ...], handler: Callable[[int, FrameType | None], None]
) -> Generator[dict[signal.Signals, Handler]]:
    """Handle those of the signals that are not ignored, in the main thread only; yields the previous handlers."""
    before: dict[signal.Signals, Handler] = {}
    terminals = [output for output in (1, 2) if os.isatty(output)]

    def handle(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            _leave(terminals)
        handler(number, frame)

    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in numbers}
        # A handler that was not set from Python (None) cannot be restored.
        before = {number: old for number, old in before.items() if old not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, handle)
    try:
        yield before
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _leave(terminals: list[int]) -> None:
    """Redirect outputs of a closed terminal: an error from a progress bar would prevent saving."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for output in terminals:
        os.dup2(nowhere, output)
    os.close(nowhere)
