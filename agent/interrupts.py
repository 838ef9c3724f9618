"""Ctrl-C that waits for the end of what is half done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager


@contextmanager
def interrupts_wait() -> Generator[Callable[[], bool]]:
    """Ctrl-C while an update is half done waits for its end; a second one does not.

    Yields a function that says whether there was one.
    """
    came: list[int] = []

    def remember(signum: int, frame: object) -> None:
        del frame
        came.append(signum)
        signal.signal(signal.SIGINT, before)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = signal.signal(signal.SIGINT, remember)
    try:
        yield lambda: bool(came)
    finally:
        signal.signal(signal.SIGINT, before)
