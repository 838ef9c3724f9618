"""The command `llamarm`, which kills itself by SIGKILL at a chosen file operation.

    python -m benchmarks.campaign.driver [--below DIR] [--note FILE] [--die AREA N] [--tear] [--most BYTES] -- ARGS

The moments are its file operations below DIR, as Python's audit hooks see them: a file opened for writing, a folder
made, a rename, a removal. AREA is the first part of a path below DIR, e.g. `checkpoints`; `files` for hidden ones
directly in DIR, which small files are written to first. The process dies right before the N-th operation there. With
--tear the file that was about to be renamed is cut in half before, as if the kill had come while it was written.
--note FILE: a line of what it died before, else the number of operations by area. --most BYTES: no file may grow
larger, as on a full disk (RLIMIT_FSIZE).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from agent.cli import main as llamarm

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_OPERATIONS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.link")


class Deadly:
    """An audit hook that counts file operations, and kills."""

    def __init__(self, below: Path, note: Path | None, area: str, number: int, *, tear: bool) -> None:
        self._below, self._note = str(below.resolve()) + "/", note
        self._area, self._number, self._tear = area, number, tear
        self.counts: Counter[str] = Counter()

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if event not in _OPERATIONS or not isinstance(args[0], str | os.PathLike):
            return
        if event == "open" and not (isinstance(args[2], int) and args[2] & _WRITES):
            return
        path = os.path.abspath(os.fspath(args[0]))  # noqa: PTH100  # pathlib's own calls would be audited
        if not isinstance(path, str) or not path.startswith(self._below):
            return
        area = path.removeprefix(self._below).split("/")[0]
        area = "files" if area.startswith(".") else area
        self.counts[area] += 1
        if area == self._area and self.counts[area] == self._number:
            self._die(event, path)

    def _die(self, event: str, path: str) -> None:
        self._area = ""  # what follows is ours
        if self._note is not None:
            self._note.write_text(f"{event} {path.removeprefix(self._below)}\n")
        if self._tear and event == "os.rename" and Path(path).is_file():
            os.truncate(path, Path(path).stat().st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--below", type=Path)
    parser.add_argument("--note", type=Path)
    parser.add_argument("--die", nargs=2, default=("", "0"))
    parser.add_argument("--tear", action="store_true")
    parser.add_argument("--most", type=int)
    options, args = parser.parse_known_args()
    if options.most is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (options.most, options.most))
    deadly = None
    if options.below is not None:
        area, number = options.die
        deadly = Deadly(options.below, options.note, area, int(number), tear=options.tear)
        sys.addaudithook(deadly)
    llamarm(args[args.index("--") + 1 :] if "--" in args else args)
    if deadly is not None and options.note is not None:
        options.note.write_text(json.dumps(deadly.counts))


if __name__ == "__main__":
    main()
