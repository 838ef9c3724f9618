"""CPU time per frame of decoding a dataset's videos into the cache, beside PyAV's alone.

    python -m benchmarks.decoding DIR [--frames 128x128]

CPU time, because other processes change wall-clock time; the best of several passes.
"""

from __future__ import annotations

import resource
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import av
import tyro

from rollout.dataset.batches import TrainingData
from rollout.dataset.foreign.reading import ReadingConfig
from rollout.dataset.frames import rgb_of


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of the command."""

    dataset: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """Whose frames are videos."""
    frames: str = ""
    """Size in the cache, as in `llamarm train`."""
    passes: int = 3


def decode_alone(root: Path, *, to_rgb: bool) -> int:
    """Decode every video with one thread; returns the number of frames."""
    count = 0
    for path in sorted(root.glob("videos/**/*.mp4")):
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.thread_count = 1
            for frame in container.decode(stream):
                count += 1
                if to_rgb:
                    rgb_of(frame)
    return count


def decode_into_cache(root: Path, reading: ReadingConfig) -> int:
    """Decode the dataset into a temporary cache; returns its size in bytes."""
    with tempfile.TemporaryDirectory() as cache:
        TrainingData([root], reading=reading, cache=cache)
        return sum(path.stat().st_size for path in Path(cache).rglob("*.bin"))


def cpu_s(function: Callable[[], object]) -> float:
    """CPU time of this process for a call."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    function()
    after = resource.getrusage(resource.RUSAGE_SELF)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(options: Options) -> None:
    """Print the milliseconds per frame, and the size of the cache."""
    root, reading = options.dataset, ReadingConfig(frames=options.frames)
    count = decode_alone(root, to_rgb=False)
    ways: dict[str, Callable[[], object]] = {
        "PyAV, decoded": lambda: decode_alone(root, to_rgb=False),
        "PyAV, decoded to RGB": lambda: decode_alone(root, to_rgb=True),
        "into the cache": lambda: decode_into_cache(root, reading),
    }
    for name, way in ways.items():
        best_s = min(cpu_s(way) for _ in range(options.passes))
        print(f"{name}: {1000 * best_s / count:.3f} ms per frame")
    print(f"{decode_into_cache(root, reading) / count:.0f} bytes per frame of {count}")


if __name__ == "__main__":
    main(tyro.cli(Options))
