"""For all tests."""

from __future__ import annotations

import signal

# A shell has its background jobs ignore Ctrl-C, and what is ignored stays so in every process that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
