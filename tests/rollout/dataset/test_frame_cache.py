"""The cache that rows are read from: when it is made again, where it stands, and what becomes of a full disk."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import numpy as np
import pytest
from edits import DATA, actions_of
from test_batches import assert_same, write

from rollout.dataset.batches import TrainingData
from rollout.dataset.decode import decoding_bar
from rollout.dataset.frames import decode_video, encode_video, rgb_of


def test_a_dataset_that_was_changed_in_place_is_decoded_again(tmp_path: Path) -> None:
    write(tmp_path / "a", [4])
    write(tmp_path / "v", [4], image_mode="video")
    assert TrainingData([tmp_path / "a"]).gather(np.arange(1), 1).action[0, 0, 0] != np.float32(0.77)
    file = tmp_path / "a" / DATA
    before = file.stat()
    actions_of(file, lambda actions: actions.fill(0.77))
    assert (TrainingData([tmp_path / "a"]).gather(np.arange(7), 1).action == np.float32(0.77)).all()
    content = file.read_bytes()
    actions_of(file, lambda actions: actions.fill(0.66))
    assert len(content) == file.stat().st_size, "of the same size"
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    TrainingData([tmp_path / "a"])
    actions_of(file, lambda actions: actions.fill(0.55))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    found = TrainingData([tmp_path / "a"]).gather(np.arange(7), 1).action
    assert (found == np.float32(0.55)).all(), "of the same size and time"
    old = TrainingData([tmp_path / "v"]).gather(np.arange(7), 1).frames["front"]
    video = tmp_path / "v/videos/observation.images.front/chunk-000/file-000.mp4"
    encode_video(video, np.full((7, 16, 24, 3), 200, np.uint8), 20, "libsvtav1")
    new = TrainingData([tmp_path / "v"]).gather(np.arange(7), 1).frames["front"]
    assert np.abs(new.astype(int) - 200).max() < 6
    assert np.abs(old.astype(int) - 200).mean() > 50


def test_frames_of_videos_take_half_the_place_and_differ_from_their_rgb_by_rounding(tmp_path: Path) -> None:
    write(tmp_path / "pictures", [4])
    write(tmp_path / "video", [4], image_mode="video")
    cached = {
        name: TrainingData([tmp_path / name]).gather(np.arange(7), 1).frames["front"] for name in ("pictures", "video")
    }
    assert (tmp_path / "pictures.cache/frames.front.bin").stat().st_size == 7 * 16 * 24 * 3
    assert (tmp_path / "video.cache/frames.front.bin").stat().st_size == 7 * 16 * 24 * 3 // 2
    video = tmp_path / "video/videos/observation.images.front/chunk-000/file-000.mp4"
    decoded = np.stack([rgb_of(frame) for frame in decode_video(video, np.arange(7) / 20, 20)])
    assert np.abs(cached["video"].astype(int) - decoded).max() <= 3
    assert np.abs(cached["video"].astype(int) - cached["pictures"]).mean() < 4


def test_a_dataset_that_took_another_s_place_is_decoded_again(tmp_path: Path) -> None:
    for name, value in (("a", 0.25), ("b", 0.5)):
        write(tmp_path / name, [4])
        actions_of(tmp_path / name / DATA, lambda actions, value=value: actions.fill(value))
    for path in (tmp_path / "a").rglob("*"):  # times of the files' own change are then mostly the same too
        for root in ("a", "b"):
            os.utime(tmp_path / root / path.relative_to(tmp_path / "a"), (1e9, 1e9))
    TrainingData([tmp_path / "a"])
    (tmp_path / "a").rename(tmp_path / "old")
    (tmp_path / "b").rename(tmp_path / "a")
    assert (TrainingData([tmp_path / "a"]).gather(np.arange(7), 1).action == np.float32(0.5)).all()


def test_a_cache_may_stand_elsewhere_and_where_it_cannot_stand_the_option_is_named(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        write(tmp_path / folder / "a", [4 if folder == "one" else 2])
        (tmp_path / folder / "a.cache").touch()  # as on a read-only disk, nothing can be written there
        with pytest.raises(ValueError, match=r"cannot be written to .*a\.cache .*--cache") as caught:
            TrainingData([tmp_path / folder / "a"])
        assert "\n" not in str(caught.value)
    elsewhere = TrainingData([tmp_path / "one/a", tmp_path / "two/a"], cache=tmp_path / "caches")
    assert elsewhere.num_rows == 12
    assert len(list((tmp_path / "caches").iterdir())) == 2, "datasets of one name keep apart"


def test_a_full_disk_while_decoding_is_one_line_and_leaves_nothing_half_used(tmp_path: Path) -> None:
    write(tmp_path / "a", range(3))
    write(tmp_path / "b", range(3))
    expected = TrainingData([tmp_path / "b"])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, hard))  # a frame has 1152 bytes
    try:
        with pytest.raises(ValueError, match=r"cannot be written to .*a\.cache"):
            TrainingData([tmp_path / "a"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "a.cache/frames.front.bin").stat().st_size == 0
    rows = np.arange(expected.num_rows)
    assert_same(TrainingData([tmp_path / "a"]).gather(rows, 2), expected.gather(rows, 2))


def test_a_cache_that_is_whole_is_read_where_nothing_can_be_written(tmp_path: Path) -> None:
    write(tmp_path / "a", range(2))
    expected = TrainingData([tmp_path / "a"])
    (tmp_path / "a.cache/lock").unlink()
    (tmp_path / "a.cache/lock").mkdir()  # so that opening it to write fails
    rows = np.arange(expected.num_rows)
    assert_same(TrainingData([tmp_path / "a"]).gather(rows, 2), expected.gather(rows, 2))


@pytest.mark.parametrize(("quiet", "said"), [(False, "decoding 86,000 frames of demos\n"), (True, "")])
def test_decoding_is_announced_without_a_terminal(quiet: bool, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with decoding_bar("demos", 86_000, quiet=quiet):
        pass
    assert capsys.readouterr().err == said
