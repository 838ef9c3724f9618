"""SIGTERM is distinguished from Ctrl-C, even if a library replaces the exception."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.runs.interrupts import Terminated, interrupts_wait, termination_stops


def stopped_by(number: signal.Signals) -> None:
    """A library that replaces every KeyboardInterrupt."""
    with termination_stops():
        try:
            os.kill(os.getpid(), number)
        except KeyboardInterrupt:
            raise KeyboardInterrupt from None


def waited_for(number: signal.Signals) -> None:
    """An update that is half done."""
    with interrupts_wait() as interrupted:
        os.kill(os.getpid(), number)
        if interrupted():
            raise KeyboardInterrupt


@pytest.mark.usefixtures("nothing_ignored")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("stop", [stopped_by, waited_for])
def test_sigterm_is_distinguished_from_ctrl_c(stop: Callable[[signal.Signals], None], number: signal.Signals) -> None:
    with pytest.raises(Terminated) as terminated:
        stop(number)
    assert terminated.value.number == number


def test_closing_the_terminal_stops_a_command_without_an_output_error() -> None:
    code = (
        "import signal, sys, time\n"
        "from agent.runs.interrupts import interrupts_wait\n"
        "signal.signal(signal.SIGHUP, signal.default_int_handler)\n"
        "with interrupts_wait() as interrupted:\n"
        "    print('ready', flush=True)\n"
        "    while not interrupted():\n"
        "        time.sleep(0.01)\n"
        "    print('saving', flush=True)\n"
        "    print('saved', file=open(sys.argv[1], 'w'))\n"
    )
    ours, its = pty.openpty()
    with tempfile.NamedTemporaryFile() as saved:
        process = subprocess.Popen(
            [sys.executable, "-c", code, saved.name], stdin=its, stdout=its, stderr=its, start_new_session=True
        )
        os.close(its)
        assert b"ready" in os.read(ours, 100)
        os.close(ours)
        process.send_signal(signal.SIGHUP)
        assert process.wait() == 0
        assert Path(saved.name).read_text() == "saved\n"


def test_ctrl_c_is_not_sigterm() -> None:
    with pytest.raises(KeyboardInterrupt) as stop:
        waited_for(signal.SIGINT)
    assert not isinstance(stop.value, Terminated)
