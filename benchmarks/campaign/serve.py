"""Hostile messages to `llamarm serve`, while its memory and its answers to valid ones are monitored.

The server is a process of its own on 127.0.0.1 with its usual limits but for the rate of a client; three other
processes attack it (attack.py), and this one asks it as a robot would, twenty times a second, and compares each answer
bit for bit with what the policy itself decides. It decides for one client at a time, because sums in a batch are
rounded otherwise.
"""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from agent.runs.run_folder import PRETRAINED, RunFolder
from benchmarks.campaign.attack import attack, merged
from benchmarks.campaign.hostile import observation_of
from benchmarks.campaign.tally import Tally, Work
from benchmarks.campaign.undisturbed import undisturbed
from benchmarks.clients import served
from benchmarks.serve import metric, openpi_actions, packed
from envs.types import Observation
from vla_model.policy import VLAPolicy

PER_PIECE = 50_000
_ATTACKERS = 3
_NUM_OBSERVATIONS = 64
_ASK_EVERY_S = 0.05
_SAMPLE_EVERY_S = 0.5
GROWTH = 0.05
"""Of the server's memory from the second tenth of a piece to the last that still counts as none."""
_OPTIONS = ("--max-rate-hz", "1e6", "--max-batch-size", "1", "--dtype", "float32")


def run(work: Work, size: float) -> Tally:
    """1,000,000 messages times the size, in pieces with a server each."""
    total, tally = max(2000, round(1_000_000 * size)), Tally()
    last = RunFolder(undisturbed(work, "train").root).last_checkpoint()
    assert last is not None, "the undisturbed run leaves a checkpoint"
    for first in range(0, total, PER_PIECE):
        count = min(PER_PIECE, total - first)
        do = partial(piece, work, last / PRETRAINED, first, count)
        tally.add(work.once(f"messages/{first:07d}", {"count": count}, do))
    return tally


def piece(work: Work, policy: Path, first: int, count: int) -> Tally:
    """So many messages to one server."""
    rng = np.random.default_rng(0)
    seen = [observation_of(rng) for _ in range(_NUM_OBSERVATIONS)]
    chunks = decided(policy, seen)
    log = work.root / "scratch" / "server.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as stderr, served(policy, 1, *_OPTIONS, stderr=stderr) as url:
        began_s = time.monotonic()
        with watched(url, seen, chunks) as (tally, memory_mb):
            shares = [count // _ATTACKERS + (n < count % _ATTACKERS) for n in range(_ATTACKERS)]
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(_ATTACKERS, context) as pool:
                actions = [chunk[0].tobytes() for chunk in chunks]
                jobs = [pool.submit(attack, url, share, first + n, seen, actions) for n, share in enumerate(shares)]
                tallies = [job.result() for job in jobs]
        tally.add(merged(tallies))
        seconds = time.monotonic() - began_s
        end(url, tally)
    judge_memory(memory_mb, count, seconds, tally)
    tally.counts["bytes of the server's log"] += log.stat().st_size
    return tally


def decided(folder: Path, seen: Sequence[Observation]) -> list[NDArray[np.float32]]:
    """What the policy itself says of each, [K, A]."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    policy = VLAPolicy.from_pretrained(folder, dtype="float32")
    chunks = []
    for observation in seen:
        policy.begin([0], observation["instruction"], (0,))
        chunks.append(policy.act([0], observation).actions[0])
    torch.set_num_threads(threads)
    return chunks


@contextmanager
def watched(
    url: str, seen: Sequence[Observation], chunks: Sequence[NDArray[np.float32]]
) -> Iterator[tuple[Tally, list[float]]]:
    """Ask, compare and sample memory as long as this is open: what came of it, and the memory in MB."""
    tally, memory_mb, over = Tally(), [], threading.Event()

    def ask() -> None:
        number = 0
        with connect(url, compression=None) as connection:
            connection.recv(60)
            while not over.wait(_ASK_EVERY_S):
                connection.send(packed(seen[number % len(seen)]))
                answer: Any = connection.recv(60)
                right = isinstance(answer, bytes) and same(openpi_actions(answer), chunks[number % len(seen)])
                tally.counts["right answers to the robot"] += right
                if not right:
                    tally.fault(f"the robot's question {number} was answered wrongly: {answer[:200]!r}")
                number += 1

    def guarded(watch: Any) -> None:
        try:
            watch()
        except (OSError, WebSocketException, TimeoutError) as error:
            tally.fault(f"the server left its robot or its metrics alone: {error!r}")

    def sample() -> None:
        while not over.wait(_SAMPLE_EVERY_S):
            memory_mb.append(metric(url, "process_resident_memory_bytes") / 1e6)

    threads = [threading.Thread(target=guarded, args=(watch,)) for watch in (ask, sample)]
    for thread in threads:
        thread.start()
    try:
        yield tally, memory_mb
    finally:
        over.set()
        for thread in threads:
            thread.join()


def same(found: NDArray[Any], expected: NDArray[np.float32]) -> bool:
    """Bit for bit."""
    return found.dtype == expected.dtype and found.shape == expected.shape and found.tobytes() == expected.tobytes()


def end(url: str, tally: Tally) -> None:
    """Whether the server lives, and kept nobody."""
    try:
        for _ in range(20):
            clients = metric(url, 'llamarm_clients{path="/"}') + metric(url, 'llamarm_clients{path="/vla-eval"}')
            if clients == 0:
                break
            time.sleep(0.2)
        if clients:
            tally.fault(f"{clients:.0f} clients are still counted when all have gone")
        tally.counts["open files at the end, of all servers"] += round(metric(url, "process_open_fds"))
    except OSError as error:
        tally.fault(f"the server is gone: {error}")


def judge_memory(memory_mb: Sequence[float], count: int, seconds: float, tally: Tally) -> None:
    """Note how fast so many messages were read, the server's memory meanwhile, and whether it grew."""
    if len(memory_mb) < 10:
        tally.counts["pieces too short to judge memory"] += 1
        return
    tenth = len(memory_mb) // 10
    before, after = np.median(memory_mb[tenth : 2 * tenth]), np.median(memory_mb[-tenth:])
    half = np.array(memory_mb[len(memory_mb) // 2 :])
    slope = np.polyfit(np.linspace(0, count / 2, len(half)), half, 1)[0] * 1e5
    tally.counts["pieces with memory judged"] += 1
    growth = f"{before:.1f} MB to {after:.1f} MB, {slope:+.2f} MB per 100,000 messages in its second half"
    tally.notes.append(f"memory of a server over {count} messages in {seconds:.0f} s: {growth}")
    if after > (1 + GROWTH) * before:
        tally.fault(f"the server's memory grew: {growth}")
