"""The other interpreter's side: one process that has imported Meta-World, and one fork of it for every world.

    our process                     host (imports Meta-World once)          a world's process
    starts it with sockets  ------> forks, then watches  ---------------->  answers requests until its socket closes
    closes the life line, or dies   kills its forks and ends

A world that hangs in C code does not see its socket close; so the host ends its forks by force.
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
    """Run until the life line closes; sys.argv[1] is what subprocesses.py asks for, as JSON."""
    asked = json.loads(sys.argv[1])
    from envs.suites.metaworld.simulation import Simulation

    sensor = Sensor.of(asked["sensor"])
    memory = mmap.mmap(asked["frames_fd"], 0)
    forks = {}
    for world, fd in enumerate(asked["channel_fds"]):
        if (pid := os.fork()) == 0:
            for other in {*asked["channel_fds"], asked["life_fd"]} - {fd}:
                os.close(other)
            frames = frames_of(sensor, len(asked["channel_fds"]), memory)
            simulation = Simulation(sensor, asked["max_steps"], [of_view[world] for of_view in frames])
            _answer(Connection(fd), simulation)
            os._exit(0)
        forks[pid] = world
    for fd in asked["channel_fds"]:
        os.close(fd)
    _watch(Connection(asked["life_fd"]), forks)


def frames_of(sensor: Sensor, num_worlds: int, memory: mmap.mmap) -> list[NDArray[np.uint8]]:
    """The shared memory as frames, [N, H, W, 3] for each view."""
    frames, offset = [], 0
    for view in sensor.views:
        shape = (num_worlds, view.height_px, view.width_px, 3)
        size = int(np.prod(shape))
        frames.append(np.frombuffer(memory, np.uint8, size, offset).reshape(shape))
        offset += size
    return frames


def frames_bytes(sensor: Sensor, num_worlds: int) -> int:
    """Size of that memory."""
    return sum(3 * num_worlds * view.height_px * view.width_px for view in sensor.views)


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
    """Say which world's process ended and how; when the life line closes, end all."""
    while not life.poll(_WATCH_S):
        pid, status = os.waitpid(-1, os.WNOHANG) if forks else (0, 0)
        if pid:
            code = os.waitstatus_to_exitcode(status)
            print(f"Meta-World: the process of world {forks.pop(pid)} ended with status {code}", file=sys.stderr)
    for pid in forks:
        os.kill(pid, signal.SIGKILL)
