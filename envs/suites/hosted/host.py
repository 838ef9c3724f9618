"""The process that imports a suite once, in the suite's interpreter, and forks one process per world.

Run as a script, by subprocesses.py, which documents the sockets. Until `main` has checked the interpreter, only the
standard library is imported.

A world that hangs in C code does not notice that its socket closed, so the host kills its forks.
"""

from __future__ import annotations

import importlib.machinery
import importlib.metadata
import importlib.util
import json
import os
import pkgutil
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from types import ModuleType
from typing import Any

_WATCH_S = 0.5
_OLDEST_PYTHON = (3, 10)
_OLDEST_GYMNASIUM = (1, 1)
_OURS = ("envs", "llamarm")


class _OurPackages:
    """Finds our packages, and no other module, in our folder, which may hold libraries of another interpreter."""

    def __init__(self, root: str) -> None:
        self._root = root

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """As in importlib.abc.MetaPathFinder."""
        del path, target
        return importlib.machinery.PathFinder.find_spec(name, [self._root]) if name in _OURS else None


def main() -> None:
    """Run until the life socket closes; sys.argv[1] holds the options from subprocesses.py as JSON."""
    options = json.loads(sys.argv[1])
    channel_fds = options["channel_fds"]
    make, refusal = _prepared(options)
    if refusal is not None:
        for fd in channel_fds:  # it is the reply to the first request of each
            with suppress(BrokenPipeError):  # our process may have ended at another world's refusal
                Connection(fd).send_bytes(refusal)
        return
    forks = {}
    for world, fd in enumerate(channel_fds):
        if (pid := os.fork()) == 0:
            for other in {*channel_fds, options["life_fd"]} - {fd}:
                os.close(other)
            _answer(Connection(fd), world, make, options)
        forks[pid] = world
    for fd in channel_fds:
        os.close(fd)
    _watch(options["title"], Connection(options["life_fd"]), forks)


def _prepared(options: dict[str, Any]) -> tuple[Any, bytes | None]:
    """The suite's HostedSimulation after its `prepare`, or why it cannot be had, as a reply."""
    if missing := _missing():
        return None, _reply_of("UserError", f"{sys.executable} cannot run {options['title']}: {missing}")
    sys.meta_path.insert(0, _OurPackages(options["root"]))
    sys.path[:0] = [folder for folder in options["folders"] if folder not in sys.path]
    try:
        make = pkgutil.resolve_name(options["target"])
        make.prepare(options["arguments"])
    except ModuleNotFoundError as error:
        return None, _reply_of("UserError", f"{sys.executable} cannot run {options['title']}: {error}")
    except Exception as error:
        return None, _raised(error)
    return make, None


def _missing() -> str:
    """What this interpreter lacks to run our side, with what to do; empty if nothing."""
    if sys.version_info < _OLDEST_PYTHON:
        return f"it is Python {sys.version.split()[0]}, and 3.10 or newer is needed"
    for package in ("numpy", "gymnasium"):
        if importlib.util.find_spec(package) is None:
            return f"it has no {package}; install it with: {sys.executable} -m pip install numpy 'gymnasium>=1.1'"
    version = importlib.metadata.version("gymnasium")
    if tuple(int(number) for number in version.split(".")[:2]) < _OLDEST_GYMNASIUM:
        return f"it has gymnasium {version}; install 1.1 or newer: {sys.executable} -m pip install 'gymnasium>=1.1'"
    return ""


def _answer(channel: Connection, world: int, make: Any, options: dict[str, Any]) -> None:
    """Answer requests of one world until its socket closes, which ends the process without its destructors."""
    from envs.suites.hosted.frames import shared_frames

    simulation, frames = None, []
    while True:
        try:
            request = json.loads(channel.recv_bytes())
        except EOFError:
            os._exit(0)
        try:
            if request["do"] == "share":
                every = shared_frames(options["memory_fd"], len(options["channel_fds"]), request["views"])
                frames, reply = [of_camera[world] for of_camera in every], {}
            else:
                simulation = make(**options["arguments"]) if simulation is None else simulation
                reply = simulation.answer(request, frames)
            message = json.dumps(reply).encode()
        except Exception as error:
            message = _raised(error)
        channel.send_bytes(message)


def _raised(error: Exception) -> bytes:
    """The reply for an exception: its message where our process raises the same kind, else its traceback."""
    from envs.errors import UserError

    for kind in (UserError, NotImplementedError):
        if isinstance(error, kind):
            return _reply_of(kind.__name__, str(error))
    return _reply_of("RuntimeError", traceback.format_exc())


def _reply_of(raised: str, message: str) -> bytes:
    return json.dumps({"raised": raised, "message": message}).encode()


def _watch(title: str, life: Connection, forks: dict[int, int]) -> None:
    """Report world processes that end, with their exit status; kill all when the life socket closes."""
    while not life.poll(_WATCH_S):
        pid, status = os.waitpid(-1, os.WNOHANG) if forks else (0, 0)
        if pid:
            code = os.waitstatus_to_exitcode(status)
            print(f"{title}: the process of world {forks.pop(pid)} ended with status {code}", file=sys.stderr)
    for pid in forks:
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
