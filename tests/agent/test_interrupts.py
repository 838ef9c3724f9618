"""SIGTERM is told apart from Ctrl-C, whatever a library makes of it on the way."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from agent.interrupts import Terminated, interrupts_wait, sigterm_stops


def stopped_by(number: signal.Signals) -> None:
    """As a library does that raises every KeyboardInterrupt anew."""
    with sigterm_stops():
        try:
            os.kill(os.getpid(), number)
        except KeyboardInterrupt:
            raise KeyboardInterrupt from None


def waited_for(number: signal.Signals) -> None:
    """As an update does that was half done."""
    with interrupts_wait() as interrupted:
        os.kill(os.getpid(), number)
        if interrupted():
            raise KeyboardInterrupt


@pytest.mark.parametrize("stop", [stopped_by, waited_for])
def test_sigterm_is_told_apart_from_ctrl_c(stop: Callable[[signal.Signals], None]) -> None:
    with pytest.raises(Terminated):
        stop(signal.SIGTERM)


def test_ctrl_c_is_not_sigterm() -> None:
    with pytest.raises(KeyboardInterrupt) as stop:
        waited_for(signal.SIGINT)
    assert not isinstance(stop.value, Terminated)
