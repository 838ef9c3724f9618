"""Recordings of other programs are read as they are: every version, layout and codec."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from edits import change_info, replace_columns
from so101 import NAMES, TASKS, Layout, action_of, picture, state_of, write_recording

from envs.types import CameraSpec
from rollout.dataset.batches import TrainingData
from rollout.dataset.foreign.reading import ReadingConfig
from vla_model.inputs.conversion import Conversion


def read(root: Path, **reading: Any) -> TrainingData:
    return TrainingData([root], reading=ReadingConfig(**reading))


def assert_rows_are_the_recorded(data: TrainingData, layout: Layout, tolerance: float) -> None:
    """Frames, states, actions and instructions of every row, and the chunk of the next two actions."""
    batch = data.gather(np.arange(data.num_rows), 2)
    assert data.num_rows == sum(layout.lengths)
    assert data.conversion is not None
    for i, (episode, step) in enumerate((e, t) for e, length in enumerate(layout.lengths) for t in range(length)):
        if layout.has_state:
            np.testing.assert_array_equal(batch.state[i], state_of(episode, step))
        recorded = data.conversion.recorded(batch.action[i])
        following = min(step + 1, layout.lengths[episode] - 1)
        np.testing.assert_allclose(recorded, [action_of(episode, step), action_of(episode, following)], atol=0.02)
        assert data.instructions[batch.instruction_id[i]] == TASKS[layout.task(episode, step)]
        for number, (key, size) in enumerate(layout.cameras.items()):
            seen = batch.frames[key.removeprefix("observation.images.")][i]
            camera = data.world_spec.cameras[number]
            shown = data.conversion.frame(picture(number, episode, step, *size), camera)
            assert np.abs(seen.astype(int) - shown).mean() <= tolerance


LAYOUTS = {
    "v3 images": Layout(),
    "v2.1 images": Layout(version="v2.1"),
    "v3 AV1": Layout(codec="libsvtav1"),
    "v2.1 H.264": Layout(version="v2.1", codec="libx264"),
    # Its encoder corrupts memory at widths below 64.
    "v3 HEVC": Layout(
        codec="libx265", cameras={"observation.images.top": (48, 64), "observation.images.wrist": (64, 64)}
    ),
    "lists of any size, rows in any order": Layout(lists="variable", shuffled=True),
    "v2.1, rows in any order": Layout(version="v2.1", lists="variable", shuffled=True, codec="libx264"),
    "no state": Layout(has_state=False),
    "fractional rate": Layout(fps=12.5, codec="libx264"),
    "one file": Layout(per_file=99, codec="libx264"),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_every_layout_gives_the_recorded_rows(tmp_path: Path, layout: Layout) -> None:
    data = TrainingData([write_recording(tmp_path / "a", layout)], reading=ReadingConfig(held_out=0.0))
    assert_rows_are_the_recorded(data, layout, 0.0 if layout.codec is None else 3.0)
    assert data.world_spec.state.names == (NAMES if layout.has_state else ())
    assert data.world_spec.action.names == NAMES
    assert data.world_spec.control_dt_s == 1 / layout.fps
    sizes = [(camera.height, camera.width) for camera in data.world_spec.cameras]
    assert sizes == list(layout.cameras.values()), "smaller than 128 on both sides: as recorded"


@pytest.mark.parametrize("layout", [Layout(), Layout(codec="libsvtav1"), Layout(codec="libx264", version="v2.1")])
@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
def test_frames_are_resized_on_reading_and_stored_at_that_size_alone(tmp_path: Path, layout: Layout, fit: Any) -> None:
    root = write_recording(tmp_path / "a", layout)
    data = read(root, frames="32x16", fit=fit, held_out=0.0)
    assert_rows_are_the_recorded(data, layout, 0.0 if layout.codec is None else 4.0)
    assert {(camera.height, camera.width) for camera in data.world_spec.cameras} == {(16, 32)}
    for camera in ("top", "wrist"):
        size = (tmp_path / f"a.cache/frames.{camera}.bin").stat().st_size
        assert size == sum(layout.lengths) * 16 * 32 * 3 // 2, "1.5 bytes per pixel"
    top = data.gather(np.arange(1), 1).frames["top"][0]
    assert (top[:, :4].max() < 5) == (fit == "letterbox"), "4:3 in 2:1 has borders at its sides"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({"motors": list(NAMES)}, NAMES),
        ({"axes": {name: i for i, name in enumerate(NAMES)}}, NAMES),
        (None, tuple(f"action_{i}" for i in range(6))),
    ],
)
def test_names_may_be_nested_or_missing(tmp_path: Path, names: Any, expected: tuple[str, ...]) -> None:
    data = read(write_recording(tmp_path / "a", Layout(names=names)))
    assert data.world_spec.action.names == expected


def test_cameras_may_be_called_anything_and_depth_is_left_out(tmp_path: Path) -> None:
    depth = {"dtype": "video", "shape": [48, 64, 3], "names": None, "info": {"video.is_depth_map": True}}
    flat = {"dtype": "image", "shape": [1, 48, 64], "names": ["channels", "height", "width"]}
    cameras = {"observation.image": (48, 64), "left.eye": (32, 48)}
    layout = Layout(cameras=cameras, more_features={"d": depth, "e": flat}, codec="libx264")
    root = write_recording(tmp_path / "a", layout)
    assert [camera.name for camera in read(root).world_spec.cameras] == ["image", "left_eye"]
    change_info(
        root, lambda info: info["features"]["left.eye"].update(shape=[3, 32, 48], names=["c", "height", "width"])
    )
    assert read(root).world_spec.cameras[1] == CameraSpec(name="left_eye", height=32, width=48)


def test_two_tasks_in_one_episode_are_two_instructions(tmp_path: Path) -> None:
    layout = Layout(task_of=lambda episode, step: int(step >= 3))
    data = TrainingData([write_recording(tmp_path / "a", layout)], reading=ReadingConfig(held_out=0.0))
    assert_rows_are_the_recorded_instructions(data, layout)


def assert_rows_are_the_recorded_instructions(data: TrainingData, layout: Layout) -> None:
    batch = data.gather(np.arange(data.num_rows), 1)
    expected = [TASKS[layout.task(e, t)] for e, length in enumerate(layout.lengths) for t in range(length)]
    assert sorted(data.instructions[i] for i in batch.instruction_id) == sorted(expected)


def test_cameras_of_other_names_are_named_alike(tmp_path: Path) -> None:
    one = write_recording(tmp_path / "a", Layout())
    renamed = {"observation.images.front": (48, 64), "observation.images.wrist": (32, 48)}
    two = write_recording(tmp_path / "b", Layout(cameras=renamed))
    with pytest.raises(ValueError, match=r"b is of another kind.*\n  camera 'top' is missing; cameras: front, wrist"):
        TrainingData([one, two])
    data = TrainingData([one, two], reading=ReadingConfig(cameras=("front=observation.images.top",)))
    assert [camera.name for camera in data.world_spec.cameras] == ["front", "wrist"]
    assert data.gather(np.arange(2), 1).frames["front"].shape == (2, 48, 64, 3)
    with pytest.raises(ValueError, match=r"cameras: 'side' does not exist; cameras: observation.images.top, "):
        read(one, cameras=("front=side",))
    with pytest.raises(ValueError, match=r"two cameras of a dataset would be 'wrist'"):
        read(one, cameras=("wrist=top",))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda info: info.update(fps=25), r"fps is 25, expected 30"),
        (lambda info: info["features"]["action"].update(names=list("abcdef")), r"action names are \('a', 'b'"),
    ],
)
def test_recordings_that_do_not_fit_each_other_are_refused(tmp_path: Path, change: Any, message: str) -> None:
    one, two = (write_recording(tmp_path / name, Layout(fps=30)) for name in "ab")
    change_info(two, change)
    if "fps" in message:
        step_s = {"timestamp": np.concatenate([np.arange(n) / 25 for n in Layout().lengths[:3]]).astype(np.float32)}
        replace_columns(two / "data/chunk-000/file-000.parquet", **step_s)
        last = (np.arange(Layout().lengths[3]) / 25).astype(np.float32)
        replace_columns(two / "data/chunk-000/file-001.parquet", timestamp=last)
    with pytest.raises(ValueError, match=message):
        TrainingData([one, two])
    assert not list(tmp_path.glob("*.cache"))


def test_recordings_in_other_units_are_refused(tmp_path: Path) -> None:
    one, two = (write_recording(tmp_path / name, Layout(lists="variable")) for name in "ab")
    for file in two.glob("data/*/*.parquet"):
        for name in ("action", "observation.state"):
            radians = np.deg2rad(np.array(pq.read_table(file)[name].to_pylist()))
            replace_columns(file, **{name: radians.tolist()})
    with pytest.raises(
        ValueError, match=r"b seems to be in other units than .*a:\n  state shoulder_pan.pos: -0.\d+ to"
    ):
        TrainingData([one, two])


def test_the_policy_s_conversion_holds_where_there_is_one(tmp_path: Path) -> None:
    one = read(write_recording(tmp_path / "a", Layout(lengths=(7, 5))), held_out=0.0)
    assert one.conversion is not None
    two = TrainingData(
        [write_recording(tmp_path / "b", Layout(lengths=(3, 3)))],
        world_spec=one.world_spec,
        conversion=one.conversion,
    )
    assert (two.world_spec, two.conversion) == (one.world_spec, one.conversion)
    wider = dataclasses.replace(one.conversion, action_low=(-130.0,) * 6, action_high=(130.0,) * 6)
    three = TrainingData([tmp_path / "b"], world_spec=one.world_spec, conversion=wider)
    assert np.abs(three.gather(np.arange(3), 1).action).max() < 0.78


def test_a_policy_s_folder_says_its_conversion() -> None:
    conversion = Conversion(action_low=(-1.5, 0.0), action_high=(1.0, 100.0), fit="letterbox", cameras=(("top", "a"),))
    assert Conversion.of(conversion.to_json(), 2) == conversion
    assert conversion.recorded(conversion.actions([[-1.5, 100.0]])).tolist() == [[-1.5, 100.0]]
    for change in ({"fit": "crop"}, {"action_low": [1.0, 0.0]}, {"action_high": [0.0]}, {"cameras": ["top"]}):
        with pytest.raises(ValueError, match="a conversion"):
            Conversion.of(conversion.to_json() | change, 2)
