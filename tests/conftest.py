"""For all tests."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

# A shell has its background jobs ignore Ctrl-C, and what is ignored stays so in every process that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def nothing_ignored() -> Iterator[None]:
    """SIGTERM and SIGHUP as where no `nohup` had the tests ignore them."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number in before:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def same_scheduling_policy() -> Iterator[None]:
    """No test leaves its process real-time, which would run it and all that it starts before every other process."""
    before = os.sched_getscheduler(0)
    yield
    assert os.sched_getscheduler(0) == before
