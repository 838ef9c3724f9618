"""Episodes of other programs' recordings that failed are not used, by whichever success flags a dataset has."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from edits import add_column, change_info
from so101 import Layout, write_recording

from rollout.dataset.batches import TrainingData
from rollout.dataset.foreign.doctor import examine
from rollout.dataset.foreign.reading import ReadingConfig

LENGTHS = (7, 5, 6, 8)
V3 = Layout(lengths=LENGTHS, shuffled=True)
V2 = Layout(version="v2.1", lengths=LENGTHS, lists="variable")


def used(root: Path, part: Literal["trained on", "held out", "all"] = "all", **reading: Any) -> list[int]:
    return [row["episode_index"] for row in TrainingData([root], reading=ReadingConfig(**reading), part=part).episodes]


def last_frame_of(*episodes: int) -> Callable[[int, int], bool]:
    return lambda episode, frame: episode in episodes and frame == LENGTHS[episode] - 1


@pytest.mark.parametrize("layout", [V3, V2], ids=["v3.0", "v2.1"])
def test_an_episode_with_one_frame_of_success_succeeded(tmp_path: Path, layout: Layout) -> None:
    root = write_recording(tmp_path / "a", layout)
    add_column(root, "next.success", "bool", last_frame_of(0, 3), pa.bool_())
    data = TrainingData([root], reading=ReadingConfig(held_out=0.0))
    assert [row["episode_index"] for row in data.episodes] == [0, 3] and data.num_rows == 7 + 8
    assert used(root, held_out=0.0, with_failed=True) == [0, 1, 2, 3]
    found = examine(root, ReadingConfig())
    assert found.outcomes is not None and found.refused == []
    assert (found.outcomes.key, found.outcomes.failed) == ("next.success", {1, 2})
    assert found.lengths == [7, 8], "what would be trained on"


def test_flags_may_be_numbers_in_lists_and_missing(tmp_path: Path) -> None:
    root = write_recording(tmp_path / "a", V3)
    flags = {0: [1.0], 1: [0.0], 2: None, 3: [1.0]}
    add_column(root, "is_episode_successful", "float32", lambda episode, _: flags[episode], pa.list_(pa.float32()))
    assert used(root, held_out=0.0) == [0, 2, 3], "an episode without a flag has not failed"


def test_the_row_of_an_episode_says_more_than_its_frames(tmp_path: Path) -> None:
    root = write_recording(tmp_path / "a", V2)
    add_column(root, "next.success", "bool", lambda *_: False, pa.bool_())
    file = root / "meta/episodes.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    flags = (True, None, False, 1)
    file.write_text("".join(json.dumps(row | {"success": f}) + "\n" for row, f in zip(rows, flags, strict=True)))
    assert used(root, held_out=0.0) == [0, 1, 3]
    batch = TrainingData([root], failed="auxiliary", reading=ReadingConfig(held_out=0.0)).gather(np.arange(20), 1)
    assert batch.mask.all(), "an episode without a flag is cloned"


def test_held_out_episodes_are_of_those_that_succeeded(tmp_path: Path) -> None:
    root = write_recording(tmp_path / "a", V3)
    add_column(root, "next.success", "bool", last_frame_of(0, 2, 3), pa.bool_())
    kept, held_out = used(root, "trained on"), used(root, "held out")
    assert sorted(kept + held_out) == [0, 2, 3] and len(held_out) == 1


def test_an_episode_that_is_left_out_is_not_asked(tmp_path: Path) -> None:
    root = write_recording(tmp_path / "a", V2)
    add_column(root, "next.success", "bool", last_frame_of(0, 1, 2), pa.bool_())
    (root / "data/chunk-000/episode_000002.parquet").unlink()
    with pytest.raises(ValueError, match=r"episode_000002.parquet is missing"):
        used(root, held_out=0.0)
    assert used(root, held_out=0.0, without_episodes=("2",)) == [0, 1]
    assert examine(root, ReadingConfig()).unreadable == {2}


def test_a_dataset_of_failures_is_refused_unless_they_are_wanted(tmp_path: Path) -> None:
    root = write_recording(tmp_path / "a", V3)
    add_column(root, "next.success", "int64", lambda *_: 0, pa.int64())
    message = f"no episode of {root} succeeded, by next.success; --with-failed uses them all the same"
    with pytest.raises(ValueError, match=message):
        used(root)
    assert examine(root, ReadingConfig()).refused == [message]
    assert used(root, held_out=0.0, with_failed=True) == [0, 1, 2, 3]
    assert not examine(root, ReadingConfig(with_failed=True)).refused


def test_flags_that_are_no_numbers_are_refused_by_name(tmp_path: Path) -> None:
    root = write_recording(tmp_path / "a", V3)
    add_column(root, "next.success", "string", lambda *_: "yes", pa.string())
    with pytest.raises(ValueError, match=r"file-000.parquet: next.success has values of type string, expected bool"):
        used(root)


def test_rewards_say_nothing_and_a_dataset_that_grew_is_read_again(tmp_path: Path) -> None:
    root = write_recording(tmp_path / "a", V3)
    add_column(root, "next.reward", "float32", lambda *_: 0.0, pa.float32())
    assert used(root, held_out=0.0) == [0, 1, 2, 3]
    add_column(root, "next.success", "bool", last_frame_of(1), pa.bool_())
    assert used(root, held_out=0.0) == [1]
    change_info(root, lambda info: info["features"].pop("next.success"))
    for file in (root / "data").glob("*/*.parquet"):
        pq.write_table(pq.read_table(file).drop_columns("next.success"), file)
    assert used(root, held_out=0.0) == [0, 1, 2, 3]
