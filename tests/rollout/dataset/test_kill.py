"""A writer killed at random moments: what `append` returned for is there, the rest is gone, and writing goes on."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from fake_world import WORLD_SPEC, CountingPolicy, FakeWorld, episode_length, fake_spec

from rollout.collect import collect
from rollout.dataset.read import DatasetReader, read_stats
from rollout.dataset.write import DatasetWriter

WRITER = """
import sys
from fake_world import WORLD_SPEC, CountingPolicy, FakeWorld, fake_spec
from rollout.collect import collect
from rollout.dataset.write import DatasetWriter

with DatasetWriter(sys.argv[1], WORLD_SPEC, robot_type="fake") as writer:
    print("open", flush=True)
    done = writer.finished_ids()
    specs = [fake_spec(seed) for seed in range(10_000) if fake_spec(seed).id not in done]
    for trajectory in collect(CountingPolicy(1), FakeWorld(1), specs):
        writer.append(trajectory)
        print(trajectory.spec.seed, flush=True)
"""


def write_until_killed(root: Path, episodes: int, after_s: float) -> list[int]:
    """The seeds whose append returned before the process was killed, `after_s` after that many did."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(root)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    lines = [process.stdout.readline() for _ in range(episodes)]
    time.sleep(after_s)
    process.send_signal(signal.SIGKILL)
    lines += process.stdout.read().splitlines()
    process.wait()
    return [int(line) for line in lines]


def test_a_writer_killed_at_any_moment_loses_no_finished_episode(tmp_path: Path) -> None:
    rng = random.Random(0)
    returned: list[int] = []
    for _ in range(6):
        returned += write_until_killed(tmp_path / "a", rng.randrange(1, 12), rng.uniform(0.0, 0.05))
        # A reader needs no repair: what is named in meta/episodes is whole.
        kept = [row["seed"] for row in DatasetReader(tmp_path / "a").episodes]
        assert kept[: len(returned)] == returned
        # At most the episode whose append was about to return comes on top.
        assert len(kept) - len(returned) <= 1
        returned = kept
    assert len(returned) >= 6
    assert returned == list(range(len(returned)))
    with DatasetWriter(tmp_path / "a", WORLD_SPEC, robot_type="fake") as writer:
        assert not list((tmp_path / "a").rglob("*.part"))
        for t in collect(CountingPolicy(1), FakeWorld(1), [fake_spec(len(returned))]):
            writer.append(t)
    reader = DatasetReader(tmp_path / "a")
    assert reader.info["total_episodes"] == len(returned) + 1
    assert reader.info["total_frames"] == sum(episode_length(s) for s in range(len(returned) + 1))
    for seed, episode in enumerate(reader):
        assert np.all(episode.frames["front"][:, -1, -1, 0] == seed)
        np.testing.assert_array_equal(episode.columns["observation.state"][:, 0], np.arange(episode_length(seed)))
    np.testing.assert_array_equal(read_stats(reader.root)["index"]["count"], [reader.info["total_frames"]])
    np.testing.assert_allclose(read_stats(reader.root)["index"]["mean"], [(reader.info["total_frames"] - 1) / 2])
    files = {p.relative_to(tmp_path / "a").parts[0] for p in (tmp_path / "a").rglob("*.parquet")}
    assert files == {"data", "meta"}
    assert len(list((tmp_path / "a/data").rglob("*.parquet"))) == len(returned) + 1


def test_what_every_step_of_an_append_leaves_behind_is_repaired(tmp_path: Path) -> None:
    recorded = list(collect(CountingPolicy(1), FakeWorld(1), [fake_spec(s) for s in range(3)]))

    def write(root: Path, count: int) -> None:
        with DatasetWriter(root, WORLD_SPEC, robot_type="fake") as writer:
            for t in recorded:
                if t.spec.seed < count and t.spec.id not in writer.finished_ids():
                    writer.append(t)

    write(tmp_path / "whole", 3)
    newest = [Path("data/chunk-000/file-002.parquet"), Path("meta/episodes/chunk-000/file-002.parquet")]
    totals = [Path("meta/tasks.parquet"), Path("meta/info.json"), Path("meta/stats.json")]
    for reached in range(1, 5):
        root = tmp_path / str(reached)
        write(root, 2)
        for file in ([newest[0], totals[0], newest[1], totals[1]])[:reached]:
            (root / file).write_bytes((tmp_path / "whole" / file).read_bytes())
        (root / "data/chunk-000/file-007.parquet.part").write_bytes(b"half")
        assert len(DatasetReader(root).episodes) == (3 if reached >= 3 else 2)
        write(root, 3)
        for file in newest + totals[:2]:
            assert (root / file).read_bytes() == (tmp_path / "whole" / file).read_bytes(), file
        found = read_stats(root)
        for key, entry in read_stats(tmp_path / "whole").items():
            for name, value in entry.items():
                np.testing.assert_allclose(found[key][name], value, rtol=1e-12, atol=1e-12)
        assert pq.read_table(root / "meta/tasks.parquet").num_rows == 3
