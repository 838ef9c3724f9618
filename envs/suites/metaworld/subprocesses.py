"""Client of the processes that run Meta-World, one per world, in the interpreter that `make metaworld` builds.

Requests and replies are JSON over one socket per world; frames are in shared memory. Nothing is pickled, so the two
interpreters share only envs/suites/metaworld and the standard library.

    {"do": "begin", "task", "seed"}             -> {"state" [S], "localization" [L], "expert" [A]}
    {"do": "step", "actions" [k][A],            -> {"states" [m][S], "localization" [m][L], "dense" [m], "expert" [A],
     "render_ended"}                                "success", "truncated", "failure"} of the m <= k actions executed
    any request that raises                     -> {"error": the traceback}

"begin" renders the world's frames; "step" renders them too, except after an episode's end without render_ended.

Shape letters: N worlds, k actions, A action dims, S state dims, L localization dims, H x W pixels.
"""

from __future__ import annotations

import json
import mmap
import os
import socket
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError
from envs.suites.metaworld.host import frames_of
from envs.suites.metaworld.sensor import Sensor

PYTHON_VARIABLE = "LLAMARM_METAWORLD_PYTHON"
"""Environment variable: the interpreter with Meta-World, if not the one that `make metaworld` builds."""

_ROOT = Path(__file__).parents[3]
# Last on the path: the other interpreter's packages take precedence over those in our root.
_START = "import sys; sys.path.append({root!r}); from envs.suites.metaworld.host import main; main()"
_END_S = 10.0


def metaworld_python() -> Path:
    """The interpreter with Meta-World.

    Raises:
        UserError: it does not exist.
    """
    named = os.environ.get(PYTHON_VARIABLE)
    python = Path(named) if named else _ROOT / ".venv-metaworld" / "bin" / "python"
    if not python.exists():
        where = f"{PYTHON_VARIABLE} names {python}, which does not exist" if named else f"{python} does not exist"
        raise UserError(f"Meta-World runs in an interpreter of its own, and {where}; build it with: make metaworld")
    return python


class Subprocesses:
    """N processes of one world each; they end with this process, even if it is killed."""

    def __init__(self, num_worlds: int, sensor: Sensor, max_steps: int) -> None:
        """Start the processes; each makes its environment when its first episode begins.

        Raises:
            UserError: see `metaworld_python`.
        """
        memory_fd = os.memfd_create("llamarm-metaworld")
        os.ftruncate(memory_fd, sum(3 * num_worlds * view.height_px * view.width_px for view in sensor.views))
        pairs = [socket.socketpair() for _ in range(num_worlds + 1)]
        ours, theirs = zip(*pairs, strict=True)
        *channel_fds, life_fd = (end.fileno() for end in theirs)
        options = {
            "sensor": asdict(sensor),
            "max_steps": max_steps,
            "frames_fd": memory_fd,
            "channel_fds": channel_fds,
            "life_fd": life_fd,
        }
        start = _START.format(root=str(_ROOT))
        self._host = subprocess.Popen(
            [str(metaworld_python()), "-I", "-c", start, json.dumps(options)],
            pass_fds=(memory_fd, *channel_fds, life_fd),
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C reaches only this process, which ends them
            env=os.environ | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
        )
        for end in theirs:
            end.close()
        *self._channels, self._life = (Connection(end.detach()) for end in ours)
        self.frames: list[NDArray[np.uint8]] = frames_of(sensor, num_worlds, mmap.mmap(memory_fd, 0))
        """The last rendered frames, one uint8 [N, H, W, 3] per view."""
        os.close(memory_fd)

    def ask(self, requests: Mapping[int, dict[str, Any]]) -> dict[int, dict[str, Any]]:
        """Send every world its request and wait for all replies.

        Raises:
            RuntimeError: a world's process died, or Meta-World raised in it; the replies of the others are lost.
        """
        replies: dict[int, dict[str, Any]] = {}
        troubles: list[RuntimeError] = []
        for world, request in requests.items():
            with suppress(OSError):  # a process that died is reported by its reply
                self._channels[world].send_bytes(json.dumps(request).encode())
        for world in requests:  # read all: an unread reply would be taken for the reply to the next request
            try:
                replies[world] = self._reply(world)
            except RuntimeError as trouble:
                troubles.append(trouble)
        if troubles:
            raise troubles[0]
        return replies

    def _reply(self, world: int) -> dict[str, Any]:
        try:
            reply = json.loads(self._channels[world].recv_bytes())
        except (EOFError, OSError) as error:
            died = f"the process of Meta-World's world {world} died; stderr has the reason"
            raise RuntimeError(died) from error
        if "error" in reply:
            raise RuntimeError(f"Meta-World raised in world {world}:\n{reply['error']}")
        return reply

    def close(self) -> None:
        """End the processes; a second call does nothing."""
        for channel in (*self._channels, self._life):
            channel.close()
        try:
            self._host.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._host.kill()
            self._host.wait()
