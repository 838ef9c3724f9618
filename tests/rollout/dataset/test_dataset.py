"""Datasets on disk, read back by this project and, for the format, by pyarrow, OpenCV and PyAV alone."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_world import WORLD_SPEC, CountingPolicy, FakeWorld, episode_length, fake_spec, succeeds
from numpy.typing import NDArray

from envs.types import CameraSpec, VectorSpec, WorldSpec
from rollout.collect import collect
from rollout.dataset import write as dataset_write
from rollout.dataset.batches import TrainingData
from rollout.dataset.frames import encode_video
from rollout.dataset.read import DatasetReader, episode_files, read_info, read_rows, read_stats
from rollout.dataset.schema import ImageMode, VideoCodec, read_world_spec
from rollout.dataset.statistics import image_stats, vector_stats
from rollout.dataset.write import DatasetWriter
from rollout.types import Trajectory

VIDEO_SPEC = dataclasses.replace(
    WORLD_SPEC, cameras=(CameraSpec(name="front", height=64, width=96), CameraSpec(name="wrist", height=64, width=64))
)
MODES: list[tuple[ImageMode, VideoCodec]] = [("image", "libsvtav1"), ("video", "libsvtav1"), ("video", "h264")]


def episodes(seeds: range, world_spec: WorldSpec = WORLD_SPEC) -> list[Trajectory]:
    world = FakeWorld(2, world_spec)
    found = collect(CountingPolicy(3), world, [fake_spec(s) for s in seeds], all_frames=True)
    return sorted(found, key=lambda t: t.spec.seed)


def write(root: Path, trajectories: list[Trajectory], world_spec: WorldSpec = WORLD_SPEC, **options: Any) -> None:
    with DatasetWriter(root, world_spec, robot_type="fake", **options) as writer:
        for trajectory in trajectories:
            writer.append(trajectory)


def test_an_episode_of_many_pictures_is_written_in_parts_and_read_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset_write, "_GROUP_BYTES", 200)
    (recorded,) = episodes(range(1))
    write(tmp_path, [recorded])
    (file,) = tmp_path.glob("data/*/*.parquet")
    with pq.ParquetFile(file) as table:
        assert table.num_row_groups > 1
        pictures = table.read()[f"observation.images.{next(iter(recorded.frames))}"].to_pylist()
    assert [picture["path"] for picture in pictures] == [f"frame-{i:06d}.png" for i in range(recorded.num_steps)]
    episode = DatasetReader(tmp_path).episode(0)
    assert np.array_equal(episode.columns["executed_action"], recorded.action)
    for camera, frames in recorded.frames.items():
        assert np.array_equal(episode.frames[camera], frames)


def test_drives_of_before_holds_were_marked_are_read_and_not_continued(tmp_path: Path) -> None:
    write(tmp_path, episodes(range(1)), interventions=True)
    info = json.loads((tmp_path / "meta/info.json").read_text())
    del info["features"]["held"]
    (tmp_path / "meta/info.json").write_text(json.dumps(info))
    assert TrainingData([tmp_path]).num_rows == episode_length(0)
    with pytest.raises(ValueError, match=r"has no column .held.: record to another folder; --drives takes both"):
        write(tmp_path, [], interventions=True)


def test_video_of_odd_size_is_refused_when_the_dataset_is_opened(tmp_path: Path) -> None:
    odd = dataclasses.replace(WORLD_SPEC, cameras=(CameraSpec(name="front", height=64, width=97),))
    with pytest.raises(ValueError, match="camera 'front' has 64 x 97; use image_mode='image'"):
        DatasetWriter(tmp_path, odd, robot_type="fake", image_mode="video")
    assert list(tmp_path.iterdir()) == []


def codec_error(found: NDArray[Any], expected: NDArray[Any]) -> float:
    return float(np.abs(found.astype(int) - expected.astype(int)).mean())


@pytest.mark.parametrize(("mode", "codec"), MODES)
def test_a_reader_of_foreign_libraries_finds_what_was_recorded(
    tmp_path: Path, mode: ImageMode, codec: VideoCodec
) -> None:
    recorded = episodes(range(5), VIDEO_SPEC)
    write(tmp_path, recorded, VIDEO_SPEC, image_mode=mode, codec=codec)
    info = json.loads((tmp_path / "meta/info.json").read_text())
    total = sum(episode_length(s) for s in range(5))
    assert (info["codebase_version"], info["fps"], info["splits"]) == ("v3.0", 20, {"train": "0:5"})
    assert (info["total_episodes"], info["total_frames"]) == (5, total)
    tasks = pq.read_table(tmp_path / "meta/tasks.parquet")
    assert json.loads(tasks.schema.metadata[b"pandas"])["index_columns"] == ["task"]
    assert tasks["task_index"].to_pylist() == list(range(info["total_tasks"]))
    files = sorted((tmp_path / "meta/episodes").rglob("*.parquet"))
    rows = [row for file in files for row in pq.read_table(file).to_pylist()]
    start = 0
    for i, (row, t) in enumerate(zip(rows, recorded, strict=True)):
        assert (row["episode_index"], row["length"], row["tasks"]) == (i, t.num_steps, [t.instruction])
        assert (row["dataset_from_index"], row["dataset_to_index"]) == (start, start + t.num_steps)
        place = {"chunk_index": row["data/chunk_index"], "file_index": row["data/file_index"]}
        data = pq.read_table(tmp_path / info["data_path"].format(**place)).to_pydict()
        np.testing.assert_array_equal(np.array(data["observation.state"], np.float32), t.state)
        np.testing.assert_array_equal(np.array(data["label.localization"], np.float32), t.localization)
        np.testing.assert_array_equal(np.array(data["action"], np.float32), t.label)
        np.testing.assert_array_equal(np.array(data["executed_action"], np.float32), t.action)
        np.testing.assert_array_equal(np.array(data["next.reward"], np.float32), t.reward)
        assert data["next.done"] == [False] * (t.num_steps - 1) + [True]
        assert data["next.success"] == [False] * (t.num_steps - 1) + [t.success]
        np.testing.assert_array_equal(np.float32(data["timestamp"]), np.arange(t.num_steps, dtype=np.float32) / 20)
        assert data["frame_index"] == list(range(t.num_steps))
        assert data["index"] == list(range(start, start + t.num_steps))
        assert data["episode_index"] == [i] * t.num_steps
        assert {tasks["task"].to_pylist()[j] for j in data["task_index"]} == {t.instruction}
        start += t.num_steps
        for camera, frames in t.frames.items():
            key = f"observation.images.{camera}"
            assert info["features"][key]["dtype"] == mode
            stats = {name: np.array(row[f"stats/{key}/{name}"]) for name in ("mean", "std", "count")}
            np.testing.assert_allclose(stats["mean"].ravel(), frames.mean((0, 1, 2)) / 255, rtol=1e-6)
            np.testing.assert_allclose(stats["std"].ravel(), frames.std((0, 1, 2)) / 255, rtol=1e-6)
            assert (stats["mean"].shape, stats["count"].tolist()) == ((3, 1, 1), [t.num_steps])
            if mode == "image":
                pngs = [np.frombuffer(picture["bytes"], np.uint8) for picture in data[key]]
                found = np.array([cv2.imdecode(png, cv2.IMREAD_COLOR_RGB) for png in pngs])
                np.testing.assert_array_equal(found, frames)
                continue
            assert key not in data
            names = {name: row[f"videos/{key}/{name}"] for name in ("chunk_index", "file_index")}
            with av.open(str(tmp_path / info["video_path"].format(video_key=key, **names))) as container:
                decoded = list(container.decode(video=0))
            times = [frame.time for frame in decoded]
            np.testing.assert_allclose(
                times, row[f"videos/{key}/from_timestamp"] + np.arange(t.num_steps) / 20, atol=1e-4
            )
            assert row[f"videos/{key}/to_timestamp"] == t.num_steps / 20
            assert codec_error(np.stack([f.to_ndarray(format="rgb24") for f in decoded]), frames) < 4
            assert info["features"][key]["info"]["video.codec"] == {"libsvtav1": "av1"}.get(codec, codec)


@pytest.mark.parametrize(("mode", "codec"), MODES)
def test_our_reader_gives_back_what_was_recorded(tmp_path: Path, mode: ImageMode, codec: VideoCodec) -> None:
    recorded = episodes(range(4), VIDEO_SPEC)
    write(tmp_path, recorded, VIDEO_SPEC, image_mode=mode, codec=codec)
    reader = DatasetReader(tmp_path)
    assert read_world_spec(reader.info) == VIDEO_SPEC
    assert (len(reader.episodes), reader.info["total_frames"]) == (4, sum(t.num_steps for t in recorded))
    for i, (episode, t) in enumerate(zip(reader, recorded, strict=True)):
        np.testing.assert_array_equal(episode.columns["action"], t.label)
        np.testing.assert_array_equal(episode.columns["next.reward"], t.reward)
        assert episode.instruction == t.instruction
        assert (episode.row["spec_id"], episode.row["seed"], episode.row["task_name"]) == (t.spec.id, i, "count")
        assert (episode.row["success"], episode.row["failure"]) == (succeeds(i), "" if succeeds(i) else "wrong colour")
        for camera in t.frames:
            assert codec_error(episode.frames[camera], t.frames[camera]) <= (0 if mode == "image" else 4)


def test_total_statistics_are_those_of_all_rows(tmp_path: Path) -> None:
    recorded = episodes(range(6))
    write(tmp_path, recorded)
    stats = read_stats(tmp_path)
    for key, column in (("observation.state", "state"), ("action", "label")):
        rows = np.concatenate([getattr(t, column) for t in recorded]).astype(np.float64)
        for name, value in (("mean", rows.mean(0)), ("std", rows.std(0)), ("min", rows.min(0)), ("max", rows.max(0))):
            np.testing.assert_allclose(stats[key][name], value, rtol=1e-6, atol=1e-12, err_msg=f"{key} {name}")
        quantiles = [vector_stats(getattr(t, column))["q10"] * t.num_steps for t in recorded]
        np.testing.assert_allclose(stats[key]["q10"], np.sum(quantiles, axis=0) / len(rows))
    pixels = np.concatenate([t.frames["front"].reshape(-1, 3) for t in recorded]) / 255
    np.testing.assert_allclose(stats["observation.images.front"]["mean"].ravel(), pixels.mean(0), rtol=1e-6)
    np.testing.assert_allclose(stats["observation.images.front"]["std"].ravel(), pixels.std(0), rtol=1e-6)


def histogram_quantiles(column: NDArray[np.float64]) -> list[float]:
    """LeRobot's own way: a histogram of 5,000 bins, its cumulative sum, and a line through the bin that holds q n."""
    edges = np.linspace(column.min() - 1e-10, column.max() + 1e-10, 5001)
    counts = np.cumsum(np.histogram(column, edges)[0])
    found = []
    for q in (0.01, 0.1, 0.5, 0.9, 0.99):
        i = int(np.searchsorted(counts, q * len(column)))
        inside = counts[i] - counts[i - 1]
        fraction = (q * len(column) - counts[i - 1]) / inside if i else 0.0
        found.append(edges[i] + fraction * (edges[i + 1] - edges[i]))
    return found


def test_quantiles_are_those_of_a_histogram_of_5000_bins() -> None:
    rng = np.random.default_rng(0)
    values = np.stack([rng.normal(size=250), rng.random(250) * 1e-3, np.round(rng.normal(size=250), 1)], axis=-1)
    stats = vector_stats(values)
    for d in range(3):
        found = [stats[name][d] for name in ("q01", "q10", "q50", "q90", "q99")]
        np.testing.assert_allclose(found, histogram_quantiles(values[:, d]), rtol=1e-9)
    frames = rng.integers(20, 220, (3, 16, 16, 3), dtype=np.uint8)
    pictures = image_stats(frames)
    for c in range(3):
        found = [pictures[name][c, 0, 0] * 255 for name in ("q01", "q10", "q50", "q90", "q99")]
        np.testing.assert_allclose(found, histogram_quantiles(frames[..., c].ravel().astype(float)), rtol=1e-9)


def test_statistics_of_one_row_and_of_constants_are_the_value() -> None:
    for values in (np.array([[3.5]]), np.full((7, 1), 3.5), np.full((7, 1), 1e9)):
        stats = vector_stats(values)
        for name in ("min", "max", "mean", "q01", "q50", "q99"):
            np.testing.assert_allclose(stats[name], values[0])
        np.testing.assert_allclose(stats["std"], 0.0)


def test_a_writer_continues_where_the_last_one_stopped(tmp_path: Path) -> None:
    recorded = episodes(range(6))
    write(tmp_path / "once", recorded)
    write(tmp_path / "twice", recorded[:2])
    with DatasetWriter(tmp_path / "twice", WORLD_SPEC, robot_type="fake") as writer:
        assert writer.finished_ids() == {t.spec.id for t in recorded[:2]}
        with pytest.raises(ValueError, match="fake/count/train/1 is already in"):
            writer.append(recorded[1])
        for t in recorded[2:]:
            writer.append(t)
    files = sorted(p.relative_to(tmp_path / "once") for p in (tmp_path / "once").rglob("*.*") if "lock" not in p.name)
    assert len(files) == 6 + 6 + 3
    for file in files:
        assert (tmp_path / "once" / file).read_bytes() == (tmp_path / "twice" / file).read_bytes(), file


def test_a_dataset_of_before_cameras_had_projections_is_continued_and_then_has_them(tmp_path: Path) -> None:
    hand = VectorSpec(names=("x", "y", "z"), units=("m",) * 3, low=(-1.0,) * 3, high=(1.0,) * 3, position=(0, 1, 2))
    front = dataclasses.replace(WORLD_SPEC.cameras[0], projection=tuple(np.arange(12.0).tolist()))
    spec = dataclasses.replace(WORLD_SPEC, state=hand, cameras=(front, WORLD_SPEC.cameras[1]))
    recorded = [dataclasses.replace(t, state=np.pad(t.state, ((0, 0), (0, 1)))) for t in episodes(range(2))]
    write(tmp_path, recorded[:1], spec)
    info = json.loads((tmp_path / "meta/info.json").read_text())
    for camera in info["llamarm"]["world_spec"]["cameras"]:
        del camera["projection"]
    (tmp_path / "meta/info.json").write_text(json.dumps(info))
    assert read_world_spec(read_info(tmp_path)).cameras == WORLD_SPEC.cameras
    write(tmp_path, recorded[1:], spec)
    assert read_world_spec(read_info(tmp_path)) == spec
    moved = dataclasses.replace(front, projection=(1.0,) * 12)
    with pytest.raises(ValueError, match="another kind"):
        DatasetWriter(tmp_path, dataclasses.replace(spec, cameras=(moved, spec.cameras[1])), robot_type="fake")


def test_a_dataset_of_another_kind_is_refused_with_the_differences(tmp_path: Path) -> None:
    write(tmp_path, episodes(range(1)))
    other = dataclasses.replace(
        WORLD_SPEC, cameras=(CameraSpec(name="front", height=32, width=24), WORLD_SPEC.cameras[1]), control_dt_s=0.1
    )
    with pytest.raises(ValueError, match=r"another kind") as caught:
        DatasetWriter(tmp_path, other, robot_type="other")
    message = str(caught.value)
    assert "fps: 20, not 10" in message
    assert 'robot_type: "fake", not "other"' in message
    assert "features/observation.images.front/shape: [16, 24, 3], not [32, 24, 3]" in message


def test_a_second_writer_and_a_folder_of_something_else_are_refused(tmp_path: Path) -> None:
    with (
        DatasetWriter(tmp_path / "a", WORLD_SPEC, robot_type="fake"),
        pytest.raises(ValueError, match="open in another writer"),
    ):
        DatasetWriter(tmp_path / "a", WORLD_SPEC, robot_type="fake")
    (tmp_path / "b").mkdir()
    (tmp_path / "b/thesis.txt").touch()
    with pytest.raises(ValueError, match=r"not empty.*thesis\.txt"):
        DatasetWriter(tmp_path / "b", WORLD_SPEC, robot_type="fake")
    with pytest.raises(ValueError, match="holds no LeRobot dataset"):
        DatasetReader(tmp_path / "b")


def test_an_episode_that_does_not_fit_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    (good,) = episodes(range(1))
    (sparse,) = collect(CountingPolicy(3), FakeWorld(1), [fake_spec(1)])
    lost = good.state.copy()
    lost[1, 0] = np.nan
    with DatasetWriter(tmp_path, WORLD_SPEC, robot_type="fake") as writer:
        for bad, message in (
            (sparse, "2 frames for 4 steps.*all_frames"),
            (dataclasses.replace(good, state=lost), "observation.state .*not finite"),
            (dataclasses.replace(good, state=good.state[:, :1]), r"observation.state has shape \(3, 1\)"),
            (dataclasses.replace(good, frames={"front": good.frames["front"]}), "lacks observation.images.wrist"),
        ):
            with pytest.raises(ValueError, match=message):
                writer.append(bad)
        assert not list(tmp_path.rglob("*.parquet"))
        writer.append(good)
    assert len(DatasetReader(tmp_path).episodes) == 1


@pytest.mark.parametrize("codec", ["libsvtav1", "h264"])
def test_encoding_a_video_makes_no_thread_real_time(tmp_path: Path, codec: VideoCodec) -> None:
    def policies() -> set[int]:
        return {os.sched_getscheduler(int(thread.name)) for thread in Path("/proc/self/task").iterdir()}

    before = policies()
    during = []

    def frames() -> Iterator[NDArray[np.uint8]]:
        for _ in range(4):
            yield np.zeros((64, 64, 3), np.uint8)
            during.append(policies())

    encode_video(tmp_path / "episode.mp4", frames(), 20, codec)
    assert os.SCHED_FIFO not in before
    assert during == [before] * 4
    assert policies() == before


@pytest.mark.parametrize(("fps", "written"), [(20.0, 20), (12.5, 12.5), (29.97, 29.97), (30000 / 1001, 29.97002997)])
@pytest.mark.parametrize("mode", ["image", "video"])
def test_the_control_rate_may_be_fractional(tmp_path: Path, mode: ImageMode, fps: float, written: float) -> None:
    spec = dataclasses.replace(VIDEO_SPEC, control_dt_s=1 / fps)
    recorded = episodes(range(2), VIDEO_SPEC)
    write(tmp_path, recorded, spec, image_mode=mode, codec="h264")
    reader = DatasetReader(tmp_path)
    assert (reader.info["fps"], type(reader.info["fps"])) == (written, type(written))
    for episode, t in zip(reader, recorded, strict=True):
        np.testing.assert_allclose(np.diff(episode.columns["timestamp"]), 1 / fps, atol=1e-6)
        for camera, frames in t.frames.items():
            assert codec_error(episode.frames[camera], frames) <= (0 if mode == "image" else 4)
    data = TrainingData([tmp_path])
    assert data.world_spec == spec
    data.gather(np.arange(data.num_rows), 2)


def test_files_roll_over_to_the_next_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rollout.dataset.schema.FILES_PER_CHUNK", 2)
    write(tmp_path, episodes(range(3)))
    assert (tmp_path / "data/chunk-001/file-000.parquet").exists()
    reader = DatasetReader(tmp_path)
    assert reader.episode(2).row["data/chunk_index"] == 1
    write(tmp_path, episodes(range(3, 5)))
    assert len(DatasetReader(tmp_path).episodes) == 5


@pytest.mark.parametrize("mode", ["image", "video"])
def test_datasets_with_several_episodes_to_a_file_are_read(tmp_path: Path, mode: ImageMode) -> None:
    recorded = episodes(range(4), VIDEO_SPEC)
    write(tmp_path / "ours", recorded, VIDEO_SPEC, image_mode=mode, codec="h264")
    theirs = tmp_path / "theirs"
    (theirs / "data/chunk-000").mkdir(parents=True)
    (theirs / "meta/episodes/chunk-000").mkdir(parents=True)
    shutil.copy(tmp_path / "ours/meta/info.json", theirs / "meta/info.json")
    data = [pq.read_table(file) for file in sorted((tmp_path / "ours/data").rglob("*.parquet"))]
    pq.write_table(pa.concat_tables(data), theirs / "data/chunk-000/file-000.parquet")
    rows = [row for file in episode_files(tmp_path / "ours") for row in read_rows(file)]
    start = 0
    for row, t in zip(rows, recorded, strict=True):
        row["data/file_index"] = 0
        for camera in t.frames if mode == "video" else ():
            key = f"videos/observation.images.{camera}"
            row |= {f"{key}/file_index": 0, f"{key}/from_timestamp": start / 20}
        start += t.num_steps
    pq.write_table(pa.Table.from_pylist(rows), theirs / "meta/episodes/chunk-000/file-000.parquet")
    for camera in recorded[0].frames if mode == "video" else ():
        path = theirs / f"videos/observation.images.{camera}/chunk-000/file-000.mp4"
        path.parent.mkdir(parents=True)
        encode_video(path, np.concatenate([t.frames[camera] for t in recorded]), 20, "h264")
    for episode, t in zip(DatasetReader(theirs), recorded, strict=True):
        np.testing.assert_array_equal(episode.columns["observation.state"], t.state)
        for camera, frames in t.frames.items():
            assert codec_error(episode.frames[camera], frames) <= (0 if mode == "image" else 4)
    batch = TrainingData([theirs]).gather(np.arange(start), 2)
    np.testing.assert_array_equal(batch.state, np.concatenate([t.state for t in recorded]))
