"""Every file of a dataset, damaged: it is named in one line, or made good without the loss of an episode."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edits import change_info
from fake_world import WORLD_SPEC, CountingPolicy, FakeWorld, episode_length, fake_spec
from test_batches import write

from envs.errors import UserError
from rollout.collect import collect
from rollout.dataset.batches import TrainingData
from rollout.dataset.read import DatasetReader, read_stats, read_tasks
from rollout.dataset.schema import ImageMode, read_world_spec
from rollout.dataset.write import DatasetWriter

SEEDS = (1, 2)
ROWS = sum(episode_length(seed) for seed in SEEDS)


def halved(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def emptied(file: Path) -> None:
    file.write_bytes(b"")


def replaced(file: Path) -> None:
    file.write_bytes(b"{}")


def read_all(root: Path) -> int:
    reader = DatasetReader(root)
    _ = read_stats(reader.root), read_world_spec(reader.info)
    return sum(len(episode.frames["front"]) for episode in reader)


def train_on(root: Path) -> int:
    data = TrainingData([root])
    _ = data.stats
    return len(data.gather(np.arange(data.num_rows), 2).state)


def append_to(root: Path) -> int:
    (trajectory,) = collect(CountingPolicy(3), FakeWorld(1), [fake_spec(3)], all_frames=True)
    mode: ImageMode = "video" if (root / "videos").exists() else "image"
    with DatasetWriter(root, WORLD_SPEC, robot_type="fake", image_mode=mode) as writer:
        writer.append(trajectory)
    return read_all(root) - trajectory.num_steps


INFO, STATS, TASKS = "meta/info.json", "meta/stats.json", "meta/tasks.parquet"
LAST = "chunk-000/file-001.parquet"
EPISODES = f"meta/episodes/{LAST}"
FILES = {
    "image": (INFO, STATS, TASKS, EPISODES, f"data/{LAST}"),
    "video": ("videos/observation.images.front/chunk-000/file-001.mp4",),
}


@pytest.mark.parametrize("use", [read_all, train_on, append_to])
@pytest.mark.parametrize("damage", [halved, emptied, replaced, Path.unlink])
@pytest.mark.parametrize(("mode", "name"), [(mode, name) for mode, names in FILES.items() for name in names])
def test_a_damaged_file_is_named_in_one_line_or_made_good(
    tmp_path: Path, mode: ImageMode, name: str, damage: Callable[[Path], None], use: Callable[[Path], int]
) -> None:
    root = tmp_path / "a"
    write(root, SEEDS, image_mode=mode)
    damage(root / name)
    error, rows = None, 0
    try:
        rows = use(root)
    except ValueError as caught:
        error = caught
    if error is None:
        never_was = name == EPISODES and damage is Path.unlink  # until it is written there is no episode
        assert rows == (episode_length(SEEDS[0]) if never_was else ROWS)
        return
    assert "\n" not in str(error)
    assert Path(name).name in str(error) or name == INFO
    assert isinstance(error, UserError)
    assert name not in (STATS, TASKS) or use is not append_to, "these are made again"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("fps", 0),
        ("fps", "20"),
        ("features", {}),
        ("features", None),
        ("features", {"action": {"dtype": "float32"}}),
        ("data_path", 5),
        ("data_path", "data/{episode}.parquet"),
    ],
)
def test_an_info_of_other_kinds_of_values_is_named(tmp_path: Path, key: str, value: Any) -> None:
    write(tmp_path, [1])
    change_info(tmp_path, lambda info: info.update({key: value}))
    with pytest.raises(ValueError, match=rf"info.json is damaged: {key} is .*; restore it"):
        train_on(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda info: info.update(fps=10), "fps: 10, but a control period of 0.05 s"),
        (lambda info: info["features"].pop("action"), r"features/action: null, not \[3\]"),
        (lambda info: info["features"]["observation.images.front"].update(shape=[8, 8, 3]), r"front: \[8, 8, 3\], not"),
    ],
)
def test_an_info_that_contradicts_its_own_world_is_refused(tmp_path: Path, change: Any, message: str) -> None:
    write(tmp_path / "a", [1])
    change_info(tmp_path / "a", change)
    with pytest.raises(ValueError, match=rf"info.json contradicts its own world_spec: .*{message}"):
        train_on(tmp_path / "a")


@pytest.mark.parametrize(
    "change",
    [
        lambda stats: stats.update(action=[1]),
        lambda stats: stats["action"].pop("std"),
        lambda stats: stats["action"].update(mean=[0.5]),
        lambda stats: stats.pop("label.localization"),
    ],
)
def test_statistics_that_lack_something_are_named_and_made_again(tmp_path: Path, change: Any) -> None:
    for name in ("a", "b"):
        write(tmp_path / name, SEEDS)
    whole = (tmp_path / "b" / STATS).read_bytes()
    stats = json.loads(whole)
    change(stats)
    (tmp_path / "b" / STATS).write_text(json.dumps(stats))
    with pytest.raises(ValueError, match=r"b/meta/stats.json is damaged: .* needs count, .* append an episode"):
        _ = TrainingData([tmp_path / "a", tmp_path / "b"]).stats
    with DatasetWriter(tmp_path / "b", WORLD_SPEC, robot_type="fake"):
        pass
    assert (tmp_path / "b" / STATS).read_bytes() == whole


@pytest.mark.parametrize("damage", [halved, emptied, replaced])
@pytest.mark.parametrize("name", ["manifest.json", "state.bin", "frames.front.bin"])
def test_a_damaged_cache_is_made_again(tmp_path: Path, name: str, damage: Callable[[Path], None]) -> None:
    root = tmp_path / "a"
    write(root, SEEDS)
    assert train_on(root) == ROWS
    damage(tmp_path / "a.cache" / name)
    assert train_on(root) == ROWS


@pytest.mark.parametrize(("key", "value"), [("sources", [[]]), ("sources", [3]), ("episodes", [[]]), ("episodes", 5)])
def test_a_cache_whose_manifest_holds_other_kinds_is_made_again(tmp_path: Path, key: str, value: Any) -> None:
    root, manifest = tmp_path / "a", tmp_path / "a.cache" / "manifest.json"
    write(root, SEEDS)
    assert train_on(root) == ROWS
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {key: value}))
    assert train_on(root) == ROWS


def test_what_a_writer_made_good_reads_as_before(tmp_path: Path) -> None:
    root = tmp_path / "a"
    write(root, SEEDS)
    stats, tasks = (root / STATS).read_bytes(), read_tasks(root)
    halved(root / STATS)
    emptied(root / TASKS)
    with DatasetWriter(root, WORLD_SPEC, robot_type="fake"):
        pass
    assert ((root / STATS).read_bytes(), read_tasks(root)) == (stats, tasks)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        (
            "label",
            1.5,
            r"action of episode fake/count/train/4 is outside .*'dy' in 14.29% .*up to 1.5 in frame 3",
        ),
        ("action", -1.5, r"executed_action of episode fake/count/train/4 is outside .*'dy' .*up to 1.5 in frame 3"),
        ("label", np.nan, r"action of episode .* not finite in 1 of 7 rows; the first is nan in 'dy', frame 3"),
        ("state", np.inf, r"observation.state of episode .* the first is inf in 'pushed', frame 3"),
        ("reward", np.inf, r"next.reward of episode .* the first is inf in 0, frame 3"),
    ],
)
def test_numbers_that_cannot_be_learned_are_not_written(
    tmp_path: Path, column: str, value: float, message: str
) -> None:
    (trajectory,) = collect(CountingPolicy(3), FakeWorld(1), [fake_spec(4)], all_frames=True)
    values = getattr(trajectory, column).copy()
    values.reshape(len(values), -1)[3, -1 if column == "state" else min(1, values.ndim - 1)] = value
    with DatasetWriter(tmp_path, WORLD_SPEC, robot_type="fake") as writer:
        with pytest.raises(ValueError, match=message):
            writer.append(dataclasses.replace(trajectory, **{column: values}))
        assert not list(tmp_path.rglob("*.parquet"))
        writer.append(dataclasses.replace(trajectory, label=np.full_like(trajectory.label, 1.0000001)))
