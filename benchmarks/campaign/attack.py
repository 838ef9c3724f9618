"""A process that sends hostile and valid messages as fast as the server accepts them.

On /vla-eval an error leaves the connection open and every reply names its message (`seq`), so messages are sent a batch
at a time; a `hello` at the end of each says that all were read. On / an error ends the connection: one message each.

A right request must be answered with the very action that the policy itself decides; a hostile one that must fail, with
an error. What else comes is counted as wrong, what does not come as lost, what comes again as twice.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgpack
import numpy as np
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from benchmarks.campaign.hostile import MUST_FAIL, Message, hostile, openpi_request, vla_eval_request
from benchmarks.campaign.tally import Tally
from envs.types import Observation

BATCH = 64
_RIGHT = 0.02
"""Share of right requests: each costs a decision."""
_ALONE = 0.04
"""Share of messages sent to /, each with a connection of its own."""
_WAIT_S = 120.0


def attack(url: str, count: int, seed: int, seen: Sequence[Observation], actions: Sequence[bytes]) -> Tally:
    """Send so many messages.

    Args:
        url: of path /.
        count: messages in all.
        seed: of what is sent.
        seen: observations that right requests are made of.
        actions: the first action of what the policy decides for each, as bytes.
    """
    rng, tally = random.Random(seed), Tally()
    alone = round(count * _ALONE)
    for _ in range(alone):
        _alone(url, rng, seen, tally)
    left = count - alone
    while left > 0:
        with connect(f"{url}/vla-eval", compression=None, max_size=None, close_timeout=1.0) as connection:
            tally.counts["connections"] += 1
            for _ in range(50):
                if left > 0:
                    left -= _batch(connection, min(left, BATCH), rng, seen, actions, tally)
    return tally


def _alone(url: str, rng: random.Random, seen: Sequence[Observation], tally: Tally) -> None:
    """One message to /; the server says why not, and goodbye."""
    message = hostile(rng, openpi_request(rng.choice(seen)))
    tally.counts["messages"] += 1
    tally.counts["connections"] += 1
    tally.counts[f"sent: {message.name}"] += 1
    try:
        with connect(url, compression=None, max_size=None, close_timeout=1.0) as connection:
            connection.recv(_WAIT_S)
            connection.send(message.data)
            answer = connection.recv(_WAIT_S)
    except ConnectionClosed as error:
        tally.fault(f"a message with {message.name} to / got no word, but: {error}")
        return
    if message.fate == MUST_FAIL and not isinstance(answer, str):
        tally.fault(f"a message with {message.name} to / was answered like a right one")
    tally.counts["refused" if isinstance(answer, str) else "answered"] += 1


def _batch(
    connection: ClientConnection,
    count: int,
    rng: random.Random,
    seen: Sequence[Observation],
    actions: Sequence[bytes],
    tally: Tally,
) -> int:
    """Send so many messages in a row, then read what comes of them."""
    sent: dict[int, Message | bytes] = {}
    for _ in range(count):
        seq, number = rng.getrandbits(31), rng.randrange(len(seen))
        request = vla_eval_request(seen[number], seq)
        if rng.random() < _RIGHT:
            sent[seq] = actions[number]
            tally.counts["right requests"] += 1
            # Without an episode's beginning the rest of the last chunk would answer.
            connection.send(msgpack.packb({"type": "episode_start", "payload": {}, "seq": 0, "timestamp": 0.0}))
            connection.send(msgpack.packb(request))
            continue
        message = hostile(rng, request)
        tally.counts[f"sent: {message.name}"] += 1
        if message.fate == MUST_FAIL and message.name not in _WITHOUT_SEQ:
            sent[seq] = message
        connection.send(message.data)
    tally.counts["messages"] += count
    end = rng.getrandbits(31)
    connection.send(msgpack.packb({"type": "hello", "payload": {}, "seq": end, "timestamp": 0.0}))
    _read(connection, sent, end, tally)
    return count


_WITHOUT_SEQ = {"random bytes", "cut off", "bytes behind the end", "nesting", "lengths that are only claimed"} | {
    *("many values", "strange roots", "large", "empty", "text frame")
}
"""Whose `seq` cannot be read, so that their errors name none."""


def _read(connection: ClientConnection, sent: dict[int, Message | bytes], end: int, tally: Tally) -> None:
    """Every reply up to that of the last message, against what was sent."""
    answered = set[int]()
    while True:
        reply: dict[str, Any] = msgpack.unpackb(connection.recv(_WAIT_S))
        kind, seq = reply["type"], reply["seq"]
        if kind == "hello" and seq == end:
            break
        tally.counts["refused" if kind == "error" else "answered"] += 1
        if seq not in sent:
            continue
        if seq in answered:
            tally.twice += 1
            tally.notes.append(f"message {seq} was answered twice")
        answered.add(seq)
        said = sent[seq]
        if isinstance(said, Message) and kind != "error":
            tally.fault(f"a message with {said.name} was answered with {kind}")
        elif isinstance(said, bytes):
            _judge(reply, said, tally)
    for seq in sent.keys() - answered:
        tally.lost += 1
        said = sent[seq]
        tally.notes.append(f"no answer to {said.name if isinstance(said, Message) else 'a right request'}")


def _judge(reply: dict[str, Any], expected: bytes, tally: Tally) -> None:
    """An answer to a right request, bit for bit."""
    found = reply["payload"].get("actions", {})
    if found.get("data") == expected and found.get("dtype") == np.dtype(np.float32).str:
        tally.counts["right answers"] += 1
    else:
        tally.fault(f"a right request was answered with {str(reply['payload'])[:200]}")


def merged(tallies: Sequence[Tally]) -> Tally:
    """All together."""
    total = Tally(counts=Counter())
    for tally in tallies:
        total.add(tally)
    return total
