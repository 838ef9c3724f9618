"""Pass observations from stdin to the unmodified openpi_client, and its answers to stdout; see benchmarks/clients.py.

A separate interpreter runs this file, with openpi_client and without llamarm. Every message is encoded by
openpi_client's msgpack and preceded by its length in four bytes.
"""

from __future__ import annotations

import struct
import sys

from openpi_client import msgpack_numpy
from openpi_client.websocket_client_policy import WebsocketClientPolicy


def main(url: str) -> None:
    """Answer messages until stdin ends."""
    policy = WebsocketClientPolicy(url)
    while header := sys.stdin.buffer.read(4):
        observation = msgpack_numpy.unpackb(sys.stdin.buffer.read(*struct.unpack(">I", header)))
        answer = msgpack_numpy.packb(policy.infer(observation))
        sys.stdout.buffer.write(struct.pack(">I", len(answer)) + answer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(sys.argv[1])
