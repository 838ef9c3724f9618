"""SIGTERM is told apart from Ctrl-C, whatever a library makes of it on the way."""

from __future__ import annotations

import os
import signal

import pytest

from agent.interrupts import Terminated, interrupts_wait, sigterm_stops


def test_sigterm_that_a_library_raises_anew_as_ctrl_c_is_still_sigterm() -> None:
    with pytest.raises(Terminated), sigterm_stops():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except KeyboardInterrupt:
            raise KeyboardInterrupt from None


def test_an_update_that_sigterm_waited_for_ends_as_terminated() -> None:
    with pytest.raises(Terminated), interrupts_wait() as interrupted:
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupted()
        raise KeyboardInterrupt


def test_ctrl_c_is_not_sigterm() -> None:
    with pytest.raises(KeyboardInterrupt) as stop, sigterm_stops(), interrupts_wait():
        os.kill(os.getpid(), signal.SIGINT)
        raise KeyboardInterrupt
    assert not isinstance(stop.value, Terminated)
