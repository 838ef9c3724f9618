"""One process at a time writes into a run's folder.

It holds a lock on the file `.lock`, which the system releases when the process ends, even by kill -9. `.lock.json`
names the holder, for the error message of another process.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from envs.errors import UserError
from vla_model.files.folders import make_folder, write_json

LOCK_FILE = ".lock"
HOLDER_FILE = ".lock.json"


@contextmanager
def locked(root: Path, command: Sequence[str]) -> Generator[None]:
    """Lock a run's folder, which is created if missing.

    Args:
        command: of this process, for the error message of another one.

    Raises:
        UserError: another process holds the lock; the message names it. Or see make_folder.
        OSError: the folder cannot be created or written to.
    """
    make_folder(root)
    lock = FileLock(root / LOCK_FILE)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise UserError(f"{root} is in use by {_holder(root)}; wait for its end, or choose another --out") from None
    try:
        who = {"command": shlex.join(command), "pid": os.getpid(), "host": platform.node()}
        write_json(root / HOLDER_FILE, who)
        yield
    finally:
        (root / HOLDER_FILE).unlink(missing_ok=True)
        lock.release()


def _holder(root: Path) -> str:
    """The holder, for a message; a process that has just taken the lock may not have written its name yet."""
    try:
        who = json.loads((root / HOLDER_FILE).read_text())
        return f"`{who['command']}`, process {who['pid']} on {who['host']}"
    except (OSError, ValueError, KeyError):
        return "another process"
