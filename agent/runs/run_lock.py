"""One process at a time writes into a run's folder.

It holds a lock on the file `.lock`, which dies with its owner, so kill -9 leaves none. `.lock.json` says who holds it,
for the message to whoever comes second.
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
    """Hold a run's folder, which is made if it is not there.

    Args:
        root: the folder.
        command: what a second one is told about this process.

    Raises:
        UserError: another process holds it; the message names it. Or see make_folder.
        OSError: the folder cannot be made, or nothing can be written there.
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
    """In words; a process that has only just come has not said yet who it is."""
    try:
        who = json.loads((root / HOLDER_FILE).read_text())
        return f"`{who['command']}`, process {who['pid']} on {who['host']}"
    except (OSError, ValueError, KeyError):
        return "another process"
