"""Client of the processes that run a suite's worlds in the suite's interpreter, one process per world.

Requests and replies are JSON over one socket per world; frames are in shared memory. Nothing is pickled, so the two
interpreters share only what both import of ours.

    {"do": "share", "views"}    -> {}, from the host's code: maps the frames
    any other request           -> the reply of the suite's HostedSimulation (simulation.py)
    a request that raises       -> {"raised": the kind of exception, "message"}

One more socket, the life socket, tells the processes that ours ended, and us that a world's did:

    {"world", "status"}         <- its exit status, or a signal's number below 0

Shape letters: N worlds, H x W pixels.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError
from envs.suites.hosted.frames import Views, num_bytes, shared_frames
from envs.suites.hosted.interpreter import ROOT, Launch

_HOST = Path(__file__).with_name("host.py")
_END_S = 10.0
_REPORT_S = 5.0


class WorldDiedError(RuntimeError):
    """The process of a world ended."""


class Subprocesses:
    """N processes of one world each; they end with this process, even if it is killed.

    They also end if a call of `ask` is interrupted, because a reply that is not read would be taken for the reply to
    the next request, and if one of them dies, because what the others replied is lost with the exception.
    """

    def __init__(self, num_worlds: int, launch: Launch) -> None:
        """Start the processes; each makes its simulation at its first request.

        Raises:
            UserError: the interpreter cannot be started.
        """
        self._num_worlds = num_worlds
        self._title, self._python = launch.title, launch.python
        self._any_reply = False
        self._memory_fd = os.memfd_create("llamarm-frames")
        self.frames: list[NDArray[np.uint8]] = []
        """The last rendered frames, one uint8 [N, H, W, 3] per camera, after `share`."""
        pairs = [socket.socketpair() for _ in range(num_worlds + 1)]
        ours, theirs = zip(*pairs, strict=True)
        *channel_fds, life_fd = (end.fileno() for end in theirs)
        options = {
            "title": launch.title,
            "root": str(ROOT),
            "folders": launch.folders,
            "target": launch.target,
            "arguments": dict(launch.arguments),
            "remedy": launch.remedy,
            "memory_fd": self._memory_fd,
            "channel_fds": channel_fds,
            "life_fd": life_fd,
        }
        try:
            self._host = subprocess.Popen(
                # Without our PYTHON* variables; unbuffered, so that what a world prints is not lost with its process.
                [str(launch.python), "-E", "-u", str(_HOST), json.dumps(options)],
                pass_fds=(self._memory_fd, *channel_fds, life_fd),
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C reaches only this process, which ends them
                env=os.environ | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
            )
        except OSError as error:
            os.close(self._memory_fd)
            raise UserError(
                f"{launch.title}: the interpreter {launch.python} cannot be started: {error}; run it by hand to see why"
            ) from error
        for end in theirs:
            end.close()
        *self._channels, self._life = (Connection(end.detach()) for end in ours)

    def share(self, views: Views) -> None:
        """Allocate the frames of all worlds.

        Args:
            views: (H, W) of every camera.

        Raises:
            Exception: whatever `ask` raises.
        """
        os.ftruncate(self._memory_fd, num_bytes(self._num_worlds, views))
        self.frames = shared_frames(self._memory_fd, self._num_worlds, views)
        self.ask({world: {"do": "share", "views": [list(view) for view in views]} for world in range(self._num_worlds)})

    def ask(self, requests: Mapping[int, dict[str, Any]]) -> dict[int, dict[str, Any]]:
        """Send every world its request and wait for all replies.

        Raises:
            WorldDiedError: a world's process died, after the first reply of any.
            UserError: the interpreter does not fit or died before any reply, or the suite refused the request.
            NotImplementedError: the suite does not support the request.
            RuntimeError: anything else that a world raised, with its traceback.
        """
        try:
            for world, request in requests.items():
                with suppress(OSError):  # a process that died is reported by its reply
                    self._channels[world].send_bytes(json.dumps(request).encode())
            replies = {world: self._reply(world) for world in requests}
        except BaseException:
            self.close()
            raise
        for world, reply in replies.items():
            if (kind := reply.get("raised")) is not None:
                raise self._raised(world, kind, reply["message"])
        return replies

    @property
    def closed(self) -> bool:
        """Whether the processes were ended."""
        return self._memory_fd < 0

    def _reply(self, world: int) -> dict[str, Any]:
        try:
            reply = json.loads(self._channels[world].recv_bytes())
        except (EOFError, OSError) as error:
            died = f"the process of {self._title}'s world {world} died: {self._end_of(world)}"
            if self._any_reply:
                raise WorldDiedError(died) from error
            raise UserError(
                f"{self._title} did not start in {self._python}, which must be Python 3.10 or newer: {died}"
            ) from error
        self._any_reply = True
        return reply

    def _end_of(self, world: int) -> str:
        """How the world's process ended."""
        with suppress(EOFError, OSError):  # the host ended, e.g. because it is no Python that we can run
            while self._life.poll(_REPORT_S):
                end = json.loads(self._life.recv_bytes())
                if end["world"] == world:
                    status = end["status"]
                    if status < 0:
                        return f"killed by signal {-status}, {signal.strsignal(-status)}"
                    return f"it exited with {status}"
        return "stderr may have the reason"

    def _raised(self, world: int, kind: str, message: str) -> Exception:
        if kind == "UserError":
            return UserError(message)
        if kind == "NotImplementedError":
            return NotImplementedError(message)
        return RuntimeError(f"{self._title} raised in world {world}:\n{message}")

    def close(self) -> None:
        """End the processes; a second call does nothing."""
        for channel in (self._life, *self._channels):
            channel.close()
        if self._memory_fd >= 0:
            os.close(self._memory_fd)
            self._memory_fd = -1
        try:
            self._host.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._host.kill()
            self._host.wait()
