"""What is inferred of recordings without a WorldSpec, and what of them is refused before anything is decoded."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from edits import change_info, replace_columns
from numpy.typing import NDArray
from so101 import Layout, write_recording

from rollout.dataset.batches import TrainingData
from rollout.dataset.foreign.reading import ReadingConfig

SMALL = Layout(lists="variable", codec="libx264", version="v2.1", lengths=(40, 30, 20))
FIRST = "data/chunk-000/episode_000000.parquet"


def change_column(file: Path, name: str, change: Callable[[NDArray[Any]], None]) -> None:
    values = np.array(pq.read_table(file)[name].to_pylist())
    change(values)
    replace_columns(file, **{name: values.tolist()})


def inferred(root: Path) -> TrainingData:
    return TrainingData([root], reading=ReadingConfig(held_out=0.0))


def test_a_range_is_that_of_quantiles_widened_by_a_tenth_and_rounded_outwards(tmp_path: Path) -> None:
    root = write_recording(tmp_path / "a", SMALL)
    for number, file in enumerate(sorted(root.glob("data/*/*.parquet"))):

        def ramp(action: NDArray[Any], number: int = number) -> None:
            action[:, 0] = np.linspace(-1 - number, 1, len(action))  # down to -3 in the shortest episode

        change_column(file, "action", ramp)
    data = inferred(root)
    assert data.conversion is not None
    low, high = np.quantile(np.linspace(-3, 1, 20), 0.01), np.quantile(np.linspace(-2, 1, 30), 0.99)
    high = max(high, np.quantile(np.linspace(-1, 1, 40), 0.99))
    expected = low - 0.1 * (high - low), high + 0.1 * (high - low)
    np.testing.assert_allclose((data.conversion.action_low[0], data.conversion.action_high[0]), expected, atol=0.01)
    assert data.conversion.action_low[0] <= expected[0]
    assert data.conversion.action_high[0] >= expected[1]
    assert data.world_spec.action.units[0] == f"{data.conversion.action_low[0]:g} at -1, 1.38 at 1"
    assert data.world_spec.state.units == ("as recorded",) * 6


def test_a_glitch_of_one_frame_does_not_count_and_is_clipped(tmp_path: Path) -> None:
    root = write_recording(tmp_path / "a", Layout(lists="variable", lengths=(150, 150)))
    before = inferred(root).world_spec
    file = root / "data/chunk-000/file-000.parquet"
    change_column(file, "action", lambda action: action.__setitem__((5, 2), 1e6))
    data = inferred(root)
    assert data.world_spec.action.high == before.action.high
    assert data.conversion is not None
    assert data.conversion.action_high[2] < 60
    assert data.gather(np.array([5]), 1).action[0, 0, 2] == 1.0


def test_a_switch_keeps_both_values_exactly_however_rare_one_is(tmp_path: Path) -> None:
    root = write_recording(tmp_path / "a", Layout(lists="variable", lengths=(300, 300)))
    file = root / "data/chunk-000/file-000.parquet"

    def rare(action: NDArray[Any]) -> None:
        action[:, 5] = np.float32(0.1)
        action[450, 5] = np.float32(0.7)

    change_column(file, "action", rare)
    data = inferred(root)
    assert data.world_spec.action.grippers == (5,)
    assert data.conversion is not None
    chunk = data.gather(np.array([449]), 2).action[0, :, 5]
    assert chunk.tolist() == [-1.0, 1.0]
    recorded = data.conversion.recorded(np.stack([-np.ones(6), np.ones(6)]))[:, 5]
    assert recorded.astype(np.float32).tolist() == [np.float32(0.1), np.float32(0.7)]


def test_what_moves_for_less_than_a_hundredth_of_every_episode_keeps_its_range(tmp_path: Path) -> None:
    root = write_recording(tmp_path / "a", Layout(lists="variable", lengths=(300, 300)))

    def twice(action: NDArray[Any]) -> None:
        action[:, 1] = 0.0
        action[100, 1], action[400, 1] = -2.0, 2.0

    change_column(root / "data/chunk-000/file-000.parquet", "action", twice)
    conversion = inferred(root).conversion
    assert conversion is not None
    assert (conversion.action_low[1], conversion.action_high[1]) == (-2.4, 2.4)


def test_a_constant_is_constant(tmp_path: Path) -> None:
    root = write_recording(tmp_path / "a", Layout(lists="variable"))
    for file in root.glob("data/*/*.parquet"):
        for name in ("action", "observation.state"):
            change_column(file, name, lambda values: values.__setitem__((slice(None), 3), np.float32(0.1)))
    data = inferred(root)
    assert data.world_spec.action.grippers == ()
    assert (data.gather(np.arange(5), 2).action[..., 3] == 0.0).all()
    assert data.conversion is not None
    assert np.float32(data.conversion.recorded(np.zeros(6))[3]) == np.float32(0.1)
    assert data.stats["observation.state"]["std"][3] < 1e-6


def remove(name: str) -> Callable[[Path], Any]:
    return lambda root: (root / name).unlink()


VIDEO = "videos/chunk-000/observation.images.top/episode_000001.mp4"


def cut(root: Path) -> None:
    content = (root / VIDEO).read_bytes()
    (root / VIDEO).write_bytes(content[: len(content) // 2])


def another_size(root: Path) -> None:
    other = write_recording(root.parent / "other", replace(SMALL, cameras={"observation.images.top": (32, 64)}))
    (other / VIDEO).replace(root / VIDEO)


def shorter(root: Path) -> None:
    other = write_recording(root.parent / "other", replace(SMALL, lengths=(40, 10, 20)))
    (other / VIDEO).replace(root / VIDEO)


def column(name: str, value: Any) -> Callable[[Path], None]:
    def set_(values: NDArray[Any]) -> None:
        values.reshape(len(values), -1)[7, -1] = value

    return lambda root: change_column(root / FIRST, name, set_)


def info(**changes: Any) -> Callable[[Path], None]:
    return lambda root: change_info(root, lambda content: content.update(changes))


def features(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    return lambda root: change_info(root, lambda content: change(content["features"]))


BAD = {
    "missing data": (remove(FIRST), r"episode_000000\.parquet is missing"),
    "missing video": (remove(VIDEO), r"top/episode_000001\.mp4 is missing"),
    "truncated video": (cut, r"top/episode_000001\.mp4 is damaged"),
    "shorter video": (shorter, r"top/episode_000001\.mp4 ends before 0\.3\d+ s"),
    "another size": (another_size, r"episode_000001\.mp4: a frame of observation.images.top is 64x32, expected 64x48"),
    "nan": (
        column("action", np.nan),
        r"action of .* not finite in 1 of 90 rows; the first is nan in 'gripper.pos', episode 0, frame 7",
    ),
    "infinite": (
        column("observation.state", np.inf),
        r"observation.state of .* the first is inf in 'gripper.pos', episode 0",
    ),
    "twice": (column("frame_index", 6), r"episode 0 of .*a has frame 6 twice \(frame_index\)"),
    "gap": (column("frame_index", 99), r"episode 0 of .*a lacks frame 7: 8 is next \(frame_index\)"),
    "late": (column("timestamp", 1.5), r"episode 0 of .*a has frame 7 at 1\.5000 s, expected 0\.2333 s at 30 fps"),
    "fps 0": (info(fps=0), r"info\.json is damaged: fps is 0"),
    "unknown place": (info(data_path="data/{when}/{episode_index}"), r"info\.json is damaged: data_path is"),
    "no place of videos": (
        info(video_path=None),
        r"info\.json is damaged: video_path is null; restore it from a copy$",
    ),
    "text": (
        lambda root: replace_columns(root / FIRST, action=[["far"] * 6] * 40),
        r"episode_000000\.parquet: action has values of type .*string.*, expected numbers",
    ),
    "other version": (info(codebase_version="v1.6"), r"of version v1\.6, expected one of v3\.0, v2\.1, v2\.0"),
    "no episodes": (lambda root: (root / "meta/episodes.jsonl").write_text(""), r"a has no episodes yet"),
    "no action": (
        features(lambda of: of.pop("action")),
        r"a has no feature action or actions; features: observation.state",
    ),
    "no camera": (
        features(lambda of: [of.pop(f"observation.images.{c}") for c in ("top", "wrist")]),
        r"a has no camera",
    ),
    "wrong names": (
        features(lambda of: of["action"].update(names=["a"])),
        r'action has 6 elements and 1 names: \["a"\]',
    ),
    "wrong shape": (
        features(lambda of: of["action"].update(shape=[7], names=None)),
        r"episode_000000\.parquet: action has rows of 6 values, expected 7",
    ),
    "no column": (
        features(lambda of: of.update(actions=of.pop("action"))),
        r"episode_000000\.parquet lacks the column actions of meta/info\.json; it has: action, ",
    ),
}


@pytest.mark.parametrize(("change", "message"), BAD.values(), ids=BAD)
def test_what_cannot_be_trained_on_is_refused_by_name(
    tmp_path: Path, change: Callable[[Path], Any], message: str
) -> None:
    root = write_recording(tmp_path / "a", SMALL)
    change(root)
    with pytest.raises(ValueError, match=message) as caught:
        inferred(root)
    assert "\n" not in str(caught.value)
    cached = [path for path in tmp_path.glob("a.cache/*.bin") if path.stat().st_size]
    assert not cached


def test_held_out_episodes_are_drawn_by_seed_and_stay_so_when_a_dataset_grows(tmp_path: Path) -> None:
    few, more = (
        write_recording(tmp_path / name, Layout(lengths=(3,) * count, codec="libx264"))
        for name, count in (("a", 20), ("b", 30))
    )

    def episodes(root: Path, part: Any, seed: int = 0, share: float | None = 0.3) -> set[int]:
        data = TrainingData([root], reading=ReadingConfig(held_out=share), part=part, seed=seed)
        return {row["episode_index"] for row in data.episodes}

    held_out = episodes(few, "held out")
    assert 0 < len(held_out) < 20
    assert episodes(few, "trained on") == set(range(20)) - held_out
    assert episodes(few, "all") == set(range(20))
    assert held_out == {number for number in episodes(more, "held out") if number < 20}
    assert held_out != episodes(few, "held out", seed=1)
    assert episodes(few, "trained on", share=0.0) == set(range(20))
    assert 0 < len(episodes(few, "held out", share=None)) < 8, "a tenth, of recordings of other programs"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: [line | {"task": " "} for line in lines], "of task 0, which meta/tasks gives no instruction"),
        (lambda lines: lines[1:], "of task 0, which meta/tasks does not have; tasks: 'place the cube'"),
        (lambda lines: [line | {"task": line["task"] + "!"} for line in lines], r"with \['pick the cube'\]"),
    ],
)
def test_frames_without_an_instruction_are_refused(tmp_path: Path, change: Callable[[Any], Any], message: str) -> None:
    root = write_recording(tmp_path / "a", SMALL)
    file = root / "meta/tasks.jsonl"
    lines = change([json.loads(line) for line in file.read_text().splitlines()])
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(ValueError, match=f"episode 0 of .*a has frames .*{message}"):
        inferred(root)
    assert not (tmp_path / "a.cache").exists()
