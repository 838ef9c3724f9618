"""Meta-World's interpreter: a host process that imports Meta-World once, and one fork of it per world.

    our process                     host (imports Meta-World once)          a world's process
    starts it with sockets  ------> forks, then waits  ------------------>  answers requests until its socket closes
    closes the life socket, or dies kills its forks and exits

A world that hangs in C code does not notice that its socket closed, so the host kills its forks.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import sys
import traceback
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.suites.metaworld.sensor import Sensor

_WATCH_S = 0.5


def main() -> None:
    """Run until the life socket closes; sys.argv[1] holds the arguments from subprocesses.py as JSON."""
    options = json.loads(sys.argv[1])
    from envs.suites.metaworld.simulation import Simulation

    sensor = Sensor.of(options["sensor"])
    memory = mmap.mmap(options["frames_fd"], 0)
    forks = {}
    for world, fd in enumerate(options["channel_fds"]):
        if (pid := os.fork()) == 0:
            for other in {*options["channel_fds"], options["life_fd"]} - {fd}:
                os.close(other)
            frames = frames_of(sensor, len(options["channel_fds"]), memory)
            simulation = Simulation(sensor, options["max_steps"], [of_view[world] for of_view in frames])
            _answer(Connection(fd), simulation)
            os._exit(0)
        forks[pid] = world
    for fd in options["channel_fds"]:
        os.close(fd)
    _watch(Connection(options["life_fd"]), forks)


def frames_of(sensor: Sensor, num_worlds: int, memory: mmap.mmap) -> list[NDArray[np.uint8]]:
    """Views of the shared memory as frames, uint8 [N, H, W, 3] per view."""
    frames, offset = [], 0
    for view in sensor.views:
        shape = (num_worlds, view.height_px, view.width_px, 3)
        size = int(np.prod(shape))
        frames.append(np.frombuffer(memory, np.uint8, size, offset).reshape(shape))
        offset += size
    return frames


def _answer(channel: Connection, simulation: Any) -> None:
    while True:
        try:
            request = json.loads(channel.recv_bytes())
        except EOFError:
            return
        try:
            reply = simulation.answer(request)
        except Exception:
            reply = {"error": traceback.format_exc()}
        channel.send_bytes(json.dumps(reply).encode())


def _watch(life: Connection, forks: dict[int, int]) -> None:
    """Report world processes that end, with their exit status; kill all when the life socket closes."""
    while not life.poll(_WATCH_S):
        pid, status = os.waitpid(-1, os.WNOHANG) if forks else (0, 0)
        if pid:
            code = os.waitstatus_to_exitcode(status)
            print(f"Meta-World: the process of world {forks.pop(pid)} ended with status {code}", file=sys.stderr)
    for pid in forks:
        os.kill(pid, signal.SIGKILL)
