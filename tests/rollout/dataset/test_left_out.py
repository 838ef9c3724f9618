"""Episodes that cannot be trained on are left out by name, and the rest is read as if they had not been recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from edits import replace_columns
from so101 import Layout, action_of, state_of, write_recording

from rollout.dataset.batches import TrainingData
from rollout.dataset.foreign.reading import ReadingConfig, as_entries

LENGTHS = (7, 5, 6, 8, 5)
V2 = Layout(version="v2.1", codec="libx264", lengths=LENGTHS, lists="variable")


def spoilt(root: Path) -> Path:
    """Episode 1 has a NaN, episode 3 a video that ends too early."""
    file = root / "data/chunk-000/episode_000001.parquet"
    action = np.array(pq.read_table(file)["action"].to_pylist())
    action[2, 3] = np.nan
    replace_columns(file, action=action.tolist())
    video = root / "videos/chunk-000/observation.images.top/episode_000003.mp4"
    video.write_bytes(video.read_bytes()[:-200])
    return root


def read(*roots: Path, without: tuple[str, ...] = (), **options: Any) -> TrainingData:
    return TrainingData(roots, reading=ReadingConfig(held_out=0.0, without_episodes=without), **options)


def episodes(data: TrainingData) -> list[int]:
    return [row["episode_index"] for row in data.episodes]


def assert_rows(data: TrainingData, kept: list[int]) -> None:
    batch, at = data.gather(np.arange(data.num_rows), 1), [(e, t) for e in kept for t in range(LENGTHS[e])]
    assert data.conversion is not None
    np.testing.assert_array_equal(batch.state, [state_of(*place) for place in at])
    np.testing.assert_allclose(data.conversion.recorded(batch.action[:, 0]), [action_of(*p) for p in at], atol=0.02)
    grey = batch.frames["top"][:, 2, 2].astype(int).mean(-1)  # the upper left says the step
    np.testing.assert_allclose(grey, [20 + 9 * t for _, t in at], atol=6)


def test_bad_episodes_are_left_out_and_the_others_are_unchanged(tmp_path: Path) -> None:
    root = spoilt(write_recording(tmp_path / "a", V2))
    with pytest.raises(ValueError, match=r"not finite in 1 of 31 rows; .* episode 1, frame 2; leave such episodes out"):
        read(root)
    with pytest.raises(ValueError, match=r"episode_000003.mp4 .* episode 3, which --without-episodes 3 leaves out"):
        read(root, without=("1",))
    data = read(root, without=("1", "3"))
    assert episodes(data) == [0, 2, 4]
    assert_rows(data, [0, 2, 4])


def test_a_cache_serves_any_choice_of_episodes(tmp_path: Path) -> None:
    root = write_recording(tmp_path / "a", V2)
    size = {(): [0, 1, 2, 3, 4], ("1..3",): [0, 4], ("0", "4"): [1, 2, 3]}
    frames = tmp_path / "a.cache/frames.top.bin"
    for without in (("1..3",), (), ("0", "4"), ("1..3",)):
        data = read(root, without=without)
        assert episodes(data) == size[without]
        assert_rows(data, size[without])
        decoded = frames.stat()
    assert frames.stat() == decoded, "the last two only choose from what is decoded"
    assert decoded.st_size == sum(LENGTHS) * 48 * 64 * 3 // 2


def growing(root: Path) -> Path:
    """A dataset of which only the first three episodes are listed; the file of the others is named file-001.hidden."""
    write_recording(root, Layout(codec="libx264", lengths=LENGTHS, per_file=1, lists="variable"))
    listed = root / "meta/episodes/chunk-000/file-000.parquet"
    rows = pq.read_table(listed)
    pq.write_table(rows[:3], listed)
    pq.write_table(rows[3:], listed.with_name("file-001.hidden"))
    return listed.with_name("file-001.hidden")


def test_episodes_that_came_later_are_left_out_too(tmp_path: Path) -> None:
    hidden = growing(tmp_path / "a")
    assert episodes(read(tmp_path / "a", without=("0",))) == [1, 2]
    decoded = (tmp_path / "a.cache/frames.top.bin").stat()
    hidden.rename(hidden.with_suffix(".parquet"))
    (tmp_path / "a/data/chunk-000/file-003.parquet").unlink()
    data = read(tmp_path / "a", without=("0", "3"))
    assert_rows(data, [1, 2, 4])
    assert (tmp_path / "a.cache/frames.top.bin").stat().st_ino == decoded.st_ino, "it was extended"


def test_several_episodes_of_one_file_are_left_out(tmp_path: Path) -> None:
    layout = Layout(codec="libx264", lengths=LENGTHS, per_file=3, shuffled=True)
    root = write_recording(tmp_path / "a", layout)
    assert_rows(read(root, without=("1", "2")), [0, 3, 4])
    assert_rows(read(write_recording(tmp_path / "b", Layout(lengths=LENGTHS)), without=("0..2",)), [3, 4])


def test_ranges_and_statistics_are_those_of_the_episodes_that_are_used(tmp_path: Path) -> None:
    root = write_recording(tmp_path / "a", V2)
    file = root / "data/chunk-000/episode_000001.parquet"
    replace_columns(file, action=(1000 * np.array(pq.read_table(file)["action"].to_pylist())).tolist())
    data, all_of_them = read(root, without=("1",)), read(root)
    assert data.conversion is not None
    assert all_of_them.conversion is not None
    assert max(data.conversion.action_high) < 150 < max(all_of_them.conversion.action_high)
    assert data.stats["action"]["count"] == sum(LENGTHS) - LENGTHS[1]


def test_each_of_several_datasets_is_named(tmp_path: Path) -> None:
    one, two = (write_recording(tmp_path / name, V2) for name in "ab")
    data = read(one, two, without=("a:0..3", f"{two}:4"))
    assert [(Path(row["dataset"]).name, row["episode_index"]) for row in data.episodes] == [
        ("a", 4),
        *(("b", number) for number in range(4)),
    ]
    with pytest.raises(ValueError, match=r"'3', which is of 2 datasets; datasets: .*/a, .*/b; write .*, e.g. .*/a:3"):
        read(one, two, without=("3",))
    with pytest.raises(ValueError, match=r"'c:3', which is of no dataset; datasets: .*/a, .*/b"):
        read(one, two, without=("c:3",))


@pytest.mark.parametrize("entry", ["x", "3..1", "-1", "1.5", "a:", ":", "3..", ""])
def test_what_is_no_episode_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match=r"without-episodes has '.*', expected e\.g\. 3, 7\.\.9"):
        ReadingConfig(without_episodes=(entry,)).check()


def test_an_episode_that_does_not_exist_is_refused_with_those_that_do(tmp_path: Path) -> None:
    root = write_recording(tmp_path / "a", V2)
    with pytest.raises(ValueError, match=r"episode 5 of .*/a, to be left out, does not exist; episodes: 0 to 4"):
        read(root, without=("4..5",))
    with pytest.raises(ValueError, match=r"a has no episodes but those left out"):
        read(root, without=("0..4",))
    assert not (tmp_path / "a.cache").exists()


def test_an_appended_episode_is_named_by_its_number(tmp_path: Path) -> None:
    """Only what is not cached is checked, so an episode's place among the checked ones is not its number."""
    hidden = growing(tmp_path / "a")
    first = read(tmp_path / "a")
    hidden.rename(hidden.with_suffix(".parquet"))
    replace_columns(tmp_path / "a/data/chunk-000/file-004.parquet", action=np.full((5, 6), np.inf).tolist())
    with pytest.raises(ValueError, match=r"the first is inf in 'shoulder_pan.pos', episode 4, frame 0"):
        read(tmp_path / "a", without=("1",), world_spec=first.world_spec, conversion=first.conversion)


def test_numbers_are_written_as_options_are() -> None:
    assert as_entries([9, 3, 7, 8]) == ["3", "7..9"]
    reading = ReadingConfig(without_episodes=tuple(as_entries(range(4, 9), "/d/so101")))
    assert reading.left_out("/d/so101") == frozenset(range(4, 9))
    assert reading.left_out("/d/other") == frozenset()
