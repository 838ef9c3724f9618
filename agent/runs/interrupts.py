"""Ctrl-C, SIGTERM, which schedulers send, and SIGHUP, which a terminal sends that is closed: all stop a command, and
wait for the end of what is half done.

A signal that whoever started the process wants ignored (a shell does so to SIGINT of what it runs in the background)
stays ignored.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

_TERMINATING = (signal.SIGTERM, signal.SIGHUP)
_STOPPING = (signal.SIGINT, *_TERMINATING)


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

    with _handled(_TERMINATING, terminate), _told_apart(came):
        yield


@contextmanager
def interrupts_wait() -> Generator[Callable[[], bool]]:
    """Ctrl-C or termination while an update is half done waits for its end; a second one does not.

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
    """A KeyboardInterrupt after one of those signals leaves as Terminated, whatever raised it anew: Ray does."""
    try:
        yield
    except KeyboardInterrupt:
        if terminating := [number for number in came if number in _TERMINATING]:
            raise Terminated(terminating[0]) from None
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
    terminals = [output for output in (1, 2) if os.isatty(output)]

    def handle(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            _leave(terminals)
        handler(number, frame)

    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in numbers}
        # What was not set from Python cannot be set again from there.
        before = {number: old for number, old in before.items() if old not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, handle)
    try:
        yield before
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _leave(terminals: list[int]) -> None:
    """Write no more to outputs that are gone: an error of a progress bar would lose what is to be saved."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for output in terminals:
        os.dup2(nowhere, output)
    os.close(nowhere)
