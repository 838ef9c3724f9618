"""How a command ends that raised: a line for the user and an exit status, or, where it is a bug, the traceback."""

from __future__ import annotations

import errno
import os
import shlex
import signal
import sys
from typing import NamedTuple

from agent.runs.interrupts import Terminated

_OTHER_PLACE = "name another folder"
_GO_ON = "make room, then go on as after Ctrl-C: train with --resume, others by the same command"
_REMEDIES = {
    errno.ENOSPC: _GO_ON,
    errno.EDQUOT: _GO_ON,
    errno.EFBIG: _GO_ON,
    errno.EACCES: _OTHER_PLACE,
    errno.EPERM: _OTHER_PLACE,
    errno.EROFS: _OTHER_PLACE,
    errno.ENOTDIR: _OTHER_PLACE,
    errno.EEXIST: _OTHER_PLACE,
    errno.EISDIR: _OTHER_PLACE,
    errno.ENAMETOOLONG: _OTHER_PLACE,
}
"""What to do about errors of the machine, for a user to read; others are bugs and keep their traceback."""


class Ending(NamedTuple):
    """What is said on standard error, and the exit status."""

    line: str
    status: int


def ending(error: BaseException, args: list[str]) -> Ending | None:
    """How the command ends; None where the error is a bug, whose traceback should be seen.

    Args:
        error: what it raised.
        args: of `llamarm`.
    """
    match error:
        case KeyboardInterrupt():
            return _stopped(error, args)
        case BrokenPipeError():
            return Ending("", 0) if _reader_has_gone() else None
        case OSError(errno=number) if number in _REMEDIES:
            where = f": {error.filename}" if error.filename else ""
            return Ending(f"llamarm: {error.strerror}{where}; {_REMEDIES[number]}\n", 2)
        case FloatingPointError():
            return Ending(f"llamarm: {error}\n", 1)
        case ValueError():
            from envs.errors import UserError  # importing that package takes 0.2 s, which no help should

            return Ending(f"llamarm: {error}\n", 2) if isinstance(error, UserError) else None
    return None


def _stopped(stop: KeyboardInterrupt, args: list[str]) -> Ending:
    """What to type to go on; as a shell's, the status is 128 and the signal's number."""
    again = ["llamarm", *args]
    if args[0] == "train" and "--resume" not in args:
        again.append("--resume")
    what = "start over" if args[0] in ("eval", "experts", "drive", "console") else "go on"
    number = stop.number if isinstance(stop, Terminated) else signal.SIGINT
    return Ending(f"\nStopped. To {what}: {shlex.join(again)}\n", 128 + number)


def _reader_has_gone() -> bool:
    """Whether nobody reads the output any more (`| head`). All results are in files by then, so nothing is lost."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end
        return True
    return False
