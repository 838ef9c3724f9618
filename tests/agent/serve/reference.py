"""A policy server as openpi writes it: what it sends is, line for line, what openpi's own sends.

Of openpi (June 2026), src/openpi/serving/websocket_policy_server.py and openpi_client/msgpack_numpy.py; with
websockets' threads in place of its event loop.
"""

from __future__ import annotations

import functools
import time
import traceback
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import msgpack
import numpy as np
from peers import peer
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection

Infer = Callable[[dict[str, Any]], Any]


def pack_array(obj: Any) -> Any:
    if isinstance(obj, np.ndarray | np.generic) and obj.dtype.kind in ("V", "O", "c"):
        raise ValueError(f"Unsupported dtype: {obj.dtype}")
    if isinstance(obj, np.ndarray):
        return {b"__ndarray__": True, b"data": obj.tobytes(), b"dtype": obj.dtype.str, b"shape": obj.shape}
    if isinstance(obj, np.generic):
        return {b"__npgeneric__": True, b"data": obj.item(), b"dtype": obj.dtype.str}
    return obj


def unpack_array(obj: Any) -> Any:
    if b"__ndarray__" in obj:
        return np.ndarray(buffer=obj[b"data"], dtype=np.dtype(obj[b"dtype"]), shape=obj[b"shape"])
    if b"__npgeneric__" in obj:
        return np.dtype(obj[b"dtype"]).type(obj[b"data"])
    return obj


packb = functools.partial(msgpack.packb, default=pack_array)
unpackb = functools.partial(msgpack.unpackb, object_hook=unpack_array)


@contextmanager
def openpi_server(infer: Infer, *, metadata: dict[str, Any] | None = None, port: int = 0) -> Generator[str]:
    """The URL of a server of that policy; what `infer` returns is packed, unless it is a frame already."""

    def handler(websocket: ServerConnection) -> None:
        websocket.send(packb(metadata or {}))
        while True:
            try:
                obs = unpackb(websocket.recv())
                began = time.monotonic()
                action = infer(obs)
                if isinstance(action, dict):
                    action["server_timing"] = {"infer_ms": (time.monotonic() - began) * 1000}
                    action = packb(action)
                websocket.send(action)
            except ConnectionClosed:
                break
            except Exception:
                websocket.send(traceback.format_exc())
                websocket.close(1011, "Internal server error. Traceback included in previous frame.")
                raise

    with peer(handler, port) as url:
        yield url
