"""Messages on standard error, as standard output is for results: what a command is about to do, the commands that may
follow it, and how it ends after an exception: one line and an exit status, or for a bug the traceback.
"""

from __future__ import annotations

import errno
import os
import select
import shlex
import shutil
import signal
import sys
from pathlib import Path
from typing import NamedTuple

from agent.runs.interrupts import Terminated

_NAME = "llamarm"
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
"""Advice for OSErrors that users can fix; others are bugs and keep their traceback."""


def say(about: str, line: str) -> None:
    """Print a line about a command, a policy or a server. Only the reason for an early end begins with `llamarm: `."""
    print(f"llamarm {about}: {line}", file=sys.stderr, flush=True)


def say_next(purpose: str, *words: object) -> None:
    """Print a command that may follow, to be pasted: what it is for, and its words after the program's name."""
    print(_command_to(purpose, *words), file=sys.stderr, flush=True)


def _command_to(purpose: str, *words: object) -> str:
    return f"To {purpose}: {shlex.join([_program(), *map(str, words)])}"


def _program() -> str:
    """What the user has to type: `llamarm`, or the path of the script that is running where no PATH leads to one."""
    script = sys.argv[0]
    return script if Path(script).name == _NAME and shutil.which(_NAME) is None else _NAME


class Ending(NamedTuple):
    """The line on standard error, and the exit status."""

    line: str
    status: int


def ending(error: BaseException, args: list[str]) -> Ending | None:
    """How the command ends; None for a bug, whose traceback should be shown."""
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
            from envs.errors import UserError  # imported here, because it takes 0.2 s

            return Ending(f"llamarm: {error}\n", 2) if isinstance(error, UserError) else None
    return None


def _stopped(stop: KeyboardInterrupt, args: list[str]) -> Ending:
    """The command to continue with; as in a shell, the status is 128 plus the signal's number."""
    again = [*args, "--resume"] if args[0] == "train" and "--resume" not in args else args
    what = "start over" if args[0] in ("eval", "experts", "drive", "console") else "go on"
    number = stop.number if isinstance(stop, Terminated) else signal.SIGINT
    return Ending(f"\nStopped. {_command_to(what, *again)}\n", 128 + number)


def _reader_has_gone() -> bool:
    """Whether the output's reader has exited (`| head`). All results are in files by then, so nothing is lost."""
    if sys.stdout is None:
        return False
    descriptor, output = sys.stdout.fileno(), select.poll()
    output.register(descriptor, 0)  # errors alone; flushing would tell nothing where nothing is buffered
    if not output.poll(0):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)  # Python flushes once more at its end
    return True
