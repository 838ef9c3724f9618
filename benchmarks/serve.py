"""The server's overhead per request, the gain from batching, and stability over a long run.

    python -m benchmarks.serve --out docs/results/serve.md
    python -m benchmarks.serve --soak-minutes 30 --out docs/results/serve_soak.md

`llamarm serve` runs in a separate process and the clients in this one, on the same cores. The policy is an untrained
`nano` for two cameras of 96 x 96 pixels, unless another is named.

Soak: four clients connect and disconnect at random. Some disconnect during a request and some send invalid data. Every
answer is compared with the same policy's output in this process; growth is that of the server's resident memory, from
the second tenth of the time to the last.
"""

from __future__ import annotations

import dataclasses
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from websockets.sync.client import connect

from agent.runs.run_folder import machine, policy_folder
from agent.serve import openpi, wire
from benchmarks.clients import served
from benchmarks.document import finish, head
from benchmarks.untrained import untrained
from envs.make import make_world
from envs.types import CameraSpec, Observation
from vla_model.policy import VLAPolicy
from vla_model.weights.checkpoint import save_policy

SENTENCES = ("lift the red cube", "press the button", "push the blue ball to the green zone", "open the drawer")
NUM_OBSERVATIONS = 16
TOLERANCE = 0.02
"""Of an action in [-1, 1]: what a batch may change in bfloat16. Answers to different observations are further apart."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure."""

    policy: Path | None = None
    """A run, a checkpoint or a policy's folder; default: an untrained policy."""
    repeats: int = 200
    """Number of inferences for the overhead's medians."""
    num_clients: int = 8
    """Numbers of clients in the throughput measurements."""
    seconds: float = 20.0
    """Duration of each throughput measurement."""
    soak_minutes: float = 0.0
    """Duration of a soak test, which replaces the other measurements."""
    out: Path | None = None
    """File to which the tables are written, in addition to the screen."""


def save_untrained(folder: Path) -> None:
    """Save an untrained nano for two cameras of 96 x 96 pixels."""
    torch.manual_seed(0)
    cameras = tuple(CameraSpec(name=name, height=96, width=96) for name in ("front", "wrist"))
    world_spec = dataclasses.replace(make_world("tabletop").world_spec, cameras=cameras)
    save_policy(folder, *untrained(world_spec))


def observations(policy: VLAPolicy) -> list[Observation]:
    """Observations of one world each: noise, with one of the sentences."""
    spec, rng = policy.processor.world_spec, np.random.default_rng(0)
    return [
        Observation(
            frames={c.name: rng.integers(0, 256, (1, c.height, c.width, 3), dtype=np.uint8) for c in spec.cameras},
            state=rng.normal(size=(1, spec.state.size)).astype(np.float32),
            instruction=(SENTENCES[number % len(SENTENCES)],),
        )
        for number in range(NUM_OBSERVATIONS)
    ]


def packed(observation: Observation) -> bytes:
    """The observation as an openpi client sends it."""
    frames = {openpi.PREFIX + camera: frames[0] for camera, frames in observation["frames"].items()}
    return openpi.pack(frames | {openpi.STATE: observation["state"][0], openpi.PROMPT: observation["instruction"][0]})


def decided(policy: VLAPolicy, observation: Observation) -> NDArray[np.float32]:
    """The policy's own actions, [K, A]."""
    policy.begin([0], observation["instruction"], (0,))
    return policy.act([0], observation).actions[0]


def overhead(folder: Path, options: Options) -> Iterator[str]:
    """Table: a bare `act`, and the same through the server, in turns of 20."""
    policy = VLAPolicy.from_pretrained(folder)
    observation = observations(policy)[0]
    decided(policy, observation)
    bare_ms, served_ms = [], []
    with served(folder, 1) as url, connect(url, compression=None) as connection:
        connection.recv()
        for _ in range(max(1, options.repeats // 20)):
            for times, decide in (
                (bare_ms, lambda: policy.act([0], observation)),
                (served_ms, lambda: (connection.send(packed(observation)), openpi_actions(connection.recv()))),
            ):
                decide()
                for _ in range(20):
                    began_s = time.perf_counter()
                    decide()
                    times.append(1000.0 * (time.perf_counter() - began_s))
    yield "| | median ms | 95th percentile ms |"
    yield "|---|---|---|"
    for name, times in (("bare act", bare_ms), ("through the server", served_ms)):
        yield f"| {name} | {np.median(times):.2f} | {np.percentile(times, 95):.2f} |"
    yield f"| overhead | {np.median(served_ms) - np.median(bare_ms):.2f} | |"


def openpi_actions(answer: bytes | str) -> NDArray[np.float32]:
    """Actions [K, A] from a successful answer."""
    return openpi.array("actions", wire.entry(wire.unpack(answer), "actions"))


def throughput(folder: Path, options: Options) -> Iterator[str]:
    """Table: inferences per second for several clients, batched and one by one."""
    requests = [packed(observation) for observation in observations(VLAPolicy.from_pretrained(folder))]
    rates = {}
    for name, size in (("one by one", 1), ("batched", options.num_clients)):
        with served(folder, 1, "--max-batch-size", str(size), "--max-rate-hz", "1000") as url:
            rates[name] = decisions_per_s(url, requests, options)
    yield f"| {options.num_clients} clients | decisions/s | ratio |"
    yield "|---|---|---|"
    for name, rate in rates.items():
        yield f"| {name} | {rate:.0f} | {rate / rates['one by one']:.2f} |"


def decisions_per_s(url: str, requests: Sequence[bytes], options: Options) -> float:
    """Inferences per second of all clients together, after one second of warm-up."""
    counts = Counter[int]()
    begin_s = time.perf_counter() + 1.0

    def ask(number: int) -> None:
        with connect(url, compression=None) as connection:
            connection.recv()
            while (now_s := time.perf_counter()) < begin_s + options.seconds:
                connection.send(requests[number % len(requests)])
                connection.recv()
                counts[number] += now_s > begin_s

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(options.num_clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts.values()) / options.seconds


def soak(folder: Path, options: Options) -> Iterator[str]:
    """Table: the outcomes of four clients' requests, and the server's memory."""
    policy = VLAPolicy.from_pretrained(folder)
    seen = observations(policy)
    requests, expected = [packed(o) for o in seen], np.stack([decided(policy, o) for o in seen])  # [R, K, A]
    counts, memory_mb = Counter[str](), []
    end_s = time.monotonic() + 60.0 * options.soak_minutes
    with served(folder, 1) as url:
        threads = [
            threading.Thread(target=come_and_go, args=(url, requests, expected, end_s, counts, seed))
            for seed in range(4)
        ]
        for thread in threads:
            thread.start()
        while time.monotonic() < end_s:
            memory_mb.append(metric(url, "process_resident_memory_bytes") / 1e6)
            time.sleep(min(1.0, options.soak_minutes))
        for thread in threads:
            thread.join()
        clients, sockets = metric(url, 'llamarm_clients{path="/"}'), metric(url, "process_open_fds")
    tenth = max(1, len(memory_mb) // 10)
    before_mb, after_mb = np.median(memory_mb[tenth : 2 * tenth]), np.median(memory_mb[-tenth:])
    yield "| | |"
    yield "|---|---|"
    for name in ("right answers", "wrong answers", "left in the middle", "garbage sent", "connections"):
        yield f"| {name} | {counts[name]} |"
    yield f"| memory, second tenth of the time | {before_mb:.1f} MB |"
    yield f"| memory, last tenth | {after_mb:.1f} MB ({100 * (after_mb / before_mb - 1):+.1f} %) |"
    yield f"| clients and open files at the end | {clients:.0f}, {sockets:.0f} |"


def come_and_go(
    url: str, requests: Sequence[bytes], expected: NDArray[np.float32], end_s: float, counts: Counter[str], seed: int
) -> None:
    """A client that reconnects repeatedly and leaves after some observations, with or without closing."""
    rng = np.random.default_rng(seed)
    while time.monotonic() < end_s:
        with connect(url, compression=None) as connection:
            connection.recv()
            counts["connections"] += 1
            for _ in range(rng.integers(1, 50)):
                number = int(rng.integers(len(requests)))
                connection.send(requests[number])
                if rng.random() < 0.01:
                    counts["left in the middle"] += 1
                    connection.socket.close()
                    break
                error = np.abs(openpi_actions(connection.recv()) - expected).max((1, 2))  # [R]
                right = error[number] <= TOLERANCE and error.argmin() == number
                counts["right answers" if right else "wrong answers"] += 1
            else:
                if rng.random() < 0.2:
                    connection.send(rng.bytes(100))
                    counts["garbage sent"] += isinstance(connection.recv(), str)


def metric(url: str, name: str) -> float:
    """A value from /metrics."""
    with urlopen(url.replace("ws", "http", 1) + "/metrics", timeout=10) as response:
        (line,) = [line for line in response.read().decode().splitlines() if line.startswith(f"{name} ")]
    return float(line.split()[-1])


def main(options: Options) -> None:
    """Measure, print and write."""
    with tempfile.TemporaryDirectory() as temporary:
        if options.policy is None:
            folder = Path(temporary) / "nano"
            save_untrained(folder)
        else:
            folder = policy_folder(options.policy)
        parts = (soak,) if options.soak_minutes else (overhead, throughput)
        tables = [list(part(folder, options)) for part in parts]
    how = f"Server and clients on {machine()['cores']} cores of {machine()['cpu']}, torch {torch.__version__}."
    lines = head("The server", "serve", how)
    for table in tables:
        lines += ["", *table]
    finish(lines, options.out)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
