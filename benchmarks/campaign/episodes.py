"""Episodes through Ray workers that are repeatedly killed, stopped or starved, against an undisturbed run.

    killed                  SIGKILL
    stopped for good        SIGSTOP; it is replaced as hung, and awakes when its episodes are another's
    stopped for a moment    SIGSTOP, and SIGCONT within its deadline
    starved of CPU          runs for one millisecond in twenty
    starved of memory       holds more than its limit, and is replaced

A worker signs itself in when it begins an episode, so that whoever disturbs knows its process.
"""

from __future__ import annotations

import os
import random
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.campaign.sides import SidesWorld
from benchmarks.campaign.tally import Tally, Work, compare, trajectory_digest
from envs.types import ChunkResult, EpisodeSpec, Info, Observation
from envs.world import World
from rollout.expert import ExpertPolicy
from rollout.workers.workers import Workers, WorkersConfig

PER_PIECE = 500
CONFIG = WorkersConfig(workers=3, progress_deadline_s=3.0, start_deadline_s=60.0, memory_limit_gb=0.8)
NUM_WORLDS = 2
REST_S = 0.1
"""Of every decision: an episode lasts long enough to be disturbed."""
BALLAST = 100_000_000
"""float64: 0.8 GB, with which a worker exceeds its limit."""
BETWEEN_S = (0.5, 2.5)


class ReachableWorld(SidesWorld):
    """Signs its process in, takes its time, and eats memory when it is told to."""

    def __init__(self, num_worlds: int, folder: Path, rest_s: float) -> None:
        super().__init__(num_worlds)
        self._folder, self._rest_s = folder, rest_s
        self._ballast = np.zeros(0)

    def reset_to(self, specs: Sequence[EpisodeSpec], worlds: Sequence[int]) -> tuple[Observation, Info]:
        """As the world's, with a sign of the process."""
        (self._folder / str(os.getpid())).touch()
        return super().reset_to(specs, worlds)

    def step_chunk(
        self, actions: NDArray[np.float32], *, all_frames: bool = False, ended_frames: bool = True
    ) -> ChunkResult:
        """As the world's, after a rest."""
        time.sleep(self._rest_s)
        if (self._folder / f"{os.getpid()}.eats").exists():
            self._ballast = np.ones(BALLAST)
        return super().step_chunk(actions, all_frames=all_frames, ended_frames=ended_frames)


def _kill(pid: int, folder: Path) -> None:
    del folder
    os.kill(pid, signal.SIGKILL)


def _stop_for(seconds: float, pid: int, folder: Path) -> None:
    del folder
    os.kill(pid, signal.SIGSTOP)
    time.sleep(seconds)
    os.kill(pid, signal.SIGCONT)


def _starve_of_cpu(pid: int, folder: Path) -> None:
    del folder
    for _ in range(100):
        os.kill(pid, signal.SIGSTOP)
        time.sleep(0.019)
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.001)


def _starve_of_memory(pid: int, folder: Path) -> None:
    (folder / f"{pid}.eats").touch()
    time.sleep(1.0)


DISTURBANCES: dict[str, Callable[[int, Path], None]] = {
    "killed": _kill,
    "stopped for good": partial(_stop_for, CONFIG.progress_deadline_s + 3.0),
    "stopped for a moment": partial(_stop_for, 1.0),
    "starved of CPU": _starve_of_cpu,
    "starved of memory": _starve_of_memory,
}


@contextmanager
def disturbed(folder: Path, seed: int, counts: Counter[str]) -> Iterator[None]:
    """Disturb the workers that signed in there, one after the other, as long as this is open."""
    over, rng = threading.Event(), random.Random(seed)

    def disturb() -> None:
        kinds: list[str] = []
        while not over.wait(rng.uniform(*BETWEEN_S)):
            kinds = kinds or rng.sample(list(DISTURBANCES), len(DISTURBANCES))
            if alive := sorted(pid for pid in _signed_in(folder) if _is_alive(pid)):
                kind = kinds.pop()
                with suppress(ProcessLookupError):  # it was replaced meanwhile
                    DISTURBANCES[kind](rng.choice(alive), folder)
                counts[kind] += 1

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _signed_in(folder: Path) -> list[int]:
    return [int(file.name) for file in folder.iterdir() if file.name.isdecimal() and int(file.name) != os.getpid()]


def _is_alive(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def make_expert(world: World) -> ExpertPolicy:
    """Whose noise tells the episodes apart."""
    return ExpertPolicy(world, noise_std=0.3)


def specs_of(first_seed: int, count: int) -> list[EpisodeSpec]:
    """So many, tasks taking turns."""
    tasks = ("left", "right", "either")
    return [EpisodeSpec(suite="sides", task=tasks[n % 3], seed=first_seed + n) for n in range(count)]


def piece(first_seed: int, count: int) -> Tally:
    """Run the same episodes in this process and through disturbed workers."""
    specs, counts = specs_of(first_seed, count), Counter[str]()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        quiet = partial(ReachableWorld, NUM_WORLDS, folder, 0.0)
        with Workers(quiet, make_expert, WorkersConfig(workers=0)) as alone:
            expected = {t.spec.id: trajectory_digest(t) for t in alone.collect(specs, all_frames=True)}
        world = partial(ReachableWorld, NUM_WORLDS, folder, REST_S)
        with Workers(world, make_expert, CONFIG) as workers, disturbed(folder, first_seed, counts):
            found = [(t.spec.id, trajectory_digest(t)) for t in workers.collect(specs, all_frames=True)]
        tally = compare(expected, found, "episode ")
    counts["episodes"] += len(found)
    counts["workers replaced"] += len(workers.report.deaths)
    for cause, times in workers.report.by_cause.items():
        counts[f"replaced because {cause}"] += times
    tally.notes.extend(f"{spec.id} was set aside: {why}" for spec, why in workers.report.set_aside.items())
    tally.counts.update(counts)
    return tally


def run(work: Work, size: float) -> Tally:
    """10,000 episodes times the size."""
    total, tally = max(20, round(10_000 * size)), Tally()
    for first in range(0, total, PER_PIECE):
        count = min(PER_PIECE, total - first)
        tally.add(work.once(f"episodes/{first:06d}", {"count": count}, partial(piece, first, count)))
    return tally
