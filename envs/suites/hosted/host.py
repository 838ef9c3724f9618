"""The processes of a suite, in the suite's interpreter: one imports the suite and forks one more per world.

Run as a script, by subprocesses.py, which documents the sockets. Until `_prepared` has checked the interpreter, only
the standard library is imported.

The first process only waits for our process to end and then kills its process group: an import or a world that hangs
does not notice that its socket closed, and a world may have started processes of its own.
"""

from __future__ import annotations

import importlib.machinery
import importlib.metadata
import importlib.util
import json
import os
import pkgutil
import re
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from types import ModuleType
from typing import Any

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
    fds = [*options["channel_fds"], options["life_fd"], options["memory_fd"]]
    for fd in fds:
        os.set_inheritable(fd, False)  # what a world starts must not keep its socket open after its death
    del sys.path[0]  # this script's folder
    if os.fork() == 0:
        _run_worlds(options)
        os._exit(0)
    for fd in options["channel_fds"]:
        os.close(fd)
    Connection(options["life_fd"]).poll(None)
    os.killpg(0, signal.SIGKILL)


def _run_worlds(options: dict[str, Any]) -> None:
    """Import the suite, fork the worlds, and report their ends to our process."""
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
    life = Connection(options["life_fd"])
    while forks:
        pid, status = os.wait()
        if pid in forks:
            end = {"world": forks.pop(pid), "status": os.waitstatus_to_exitcode(status)}
            with suppress(BrokenPipeError):  # our process ended first
                life.send_bytes(json.dumps(end).encode())


def _prepared(options: dict[str, Any]) -> tuple[Any, bytes | None]:
    """The suite's HostedSimulation after its `prepare`, or why it cannot be had, as a reply."""
    if missing := _missing():
        return None, _reply_of("UserError", f"{sys.executable} cannot run {options['title']}: {missing}")
    sys.meta_path.insert(0, _OurPackages(options["root"]))
    sys.path[:0] = [folder for folder in options["folders"] if folder not in sys.path]
    try:
        make = pkgutil.resolve_name(options["target"])
        make.prepare(options["arguments"])
    except ImportError as error:
        what = f"{sys.executable} cannot run {options['title']}: {error}"
        return None, _reply_of("UserError", "; ".join(filter(None, (what, options["remedy"]))))
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
    if tuple(map(int, re.findall(r"\d+", version)[:2])) < _OLDEST_GYMNASIUM:
        return f"it has gymnasium {version}; install 1.1 or newer: {sys.executable} -m pip install 'gymnasium>=1.1'"
    return ""


def _answer(channel: Connection, world: int, make: Any, options: dict[str, Any]) -> None:
    """Answer requests of one world until its socket closes, which ends the process without its destructors."""
    from envs.suites.hosted.frames import shared_frames

    simulation, frames = None, []
    while True:
        try:
            request = json.loads(channel.recv_bytes())
        except (EOFError, OSError):
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


if __name__ == "__main__":
    main()
