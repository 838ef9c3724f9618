"""A server with a tiny policy in a thread of this process, and the observations that its clients send."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Generator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any
from urllib.request import urlopen

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_model import SENTENCES, observe, tiny_processor, tiny_vla
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.sync.connection import Connection

from agent.serve import openpi, wire
from agent.serve.server import PolicyServer, ServerConfig
from envs.types import Observation
from vla_model.policy import VLAPolicy

EXECUTE_STEPS = 2


def tiny_policy(**changes: Any) -> VLAPolicy:
    """Of a tiny model whose config has these changes."""
    return VLAPolicy(tiny_vla(**changes), tiny_processor(), version=7)


@contextmanager
def running(server: PolicyServer) -> Generator[str]:
    """The server's URL, while it listens."""
    started: Future[tuple[str, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def listen() -> None:
        stop = asyncio.Event()
        async with server.listening() as url:
            started.set_result((url, asyncio.get_running_loop(), stop))
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(listen()))
    thread.start()
    url, loop, stop = started.result(timeout=30)
    try:
        yield url
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(timeout=30)
        assert not thread.is_alive(), "the server did not end"


@contextmanager
def served(policy: VLAPolicy | None = None, **changes: Any) -> Generator[str]:
    """The URL of a server of that policy."""
    config = ServerConfig(port=0, **changes)
    with running(PolicyServer(policy or tiny_policy(), config, EXECUTE_STEPS)) as url:
        yield url


@contextmanager
def client(url: str, **options: Any) -> Generator[Connection]:
    """A connection with openpi's protocol, whose metadata was received."""
    with connect(url, compression=None, max_size=None, open_timeout=None, **options) as connection:
        assert connection.recv(timeout=30)
        yield connection


def said(seed: int, instruction: str = SENTENCES[0]) -> dict[str, Any]:
    """An observation as openpi's client packs it."""
    world = observe(1, seed)
    frames = {f"observation/{name}": frames[0] for name, frames in world["frames"].items()}
    return frames | {"observation/state": world["state"][0], "prompt": instruction}


def infer(connection: Connection, observation: dict[str, Any]) -> NDArray[np.float32]:
    connection.send(openpi.pack(observation))
    answer = connection.recv(timeout=30)
    return openpi.array("actions", wire.unpack(answer)["actions"])


def looked_back(policy: VLAPolicy, *seeds_and_steps: tuple[int, int]) -> list[NDArray[np.float32]]:
    """What the policy decides in an episode of these observations, each at its step, [K, A] each."""
    policy.begin([0], (SENTENCES[0],), (0,))
    seen = [Observation(**(observe(1, seed) | {"step": np.array([step])})) for seed, step in seeds_and_steps]
    return [policy.act([0], observation).actions[0] for observation in seen]


def in_process(policy: VLAPolicy, seed: int, instruction: str = SENTENCES[0]) -> NDArray[np.float32]:
    """What the policy decides for that observation alone, [K, A]."""
    observation: Observation = observe(1, seed, (instruction,))
    policy.begin([0], (instruction,), (0,))
    return policy.act([0], observation).actions[0]


def page(url: str, path: str) -> str:
    with urlopen(url.replace("ws", "http", 1) + path, timeout=30) as response:
        return response.read().decode()


def metric(url: str, name: str) -> float:
    """The value on the line of /metrics that begins with that name."""
    (line,) = [line for line in page(url, "/metrics").splitlines() if line.startswith(name + " ")]
    return float(line.split()[-1])


def status(url: str, **options: Any) -> int:
    """HTTP status with which a connection is refused."""
    with pytest.raises(InvalidStatus) as refused, connect(url, open_timeout=None, **options):
        pass
    return refused.value.response.status_code


def settled(url: str) -> float:
    """How many clients are connected, once no other leaves; a server notices with a delay."""
    for _ in range(1200):
        lines = [line for line in page(url, "/metrics").splitlines() if line.startswith("llamarm_clients{")]
        count = sum(float(line.split()[-1]) for line in lines)
        if count <= 1:
            break
        time.sleep(0.05)
    return count
