"""`llamarm data`: what is printed of a dataset, and that everything that would be refused is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from edits import add_column, change_info, replace_columns
from next_commands import next_commands
from sides_policy import WillingSidesWorld, sides_specs
from so101 import Layout, write_recording

from agent.cli import main
from agent.training.demonstrations import HOW_PATH
from rollout.collect import collect
from rollout.dataset.write import DatasetWriter
from rollout.expert import ExpertPolicy


def printed(capsys: pytest.CaptureFixture[str], *args: object) -> list[str]:
    main(["data", *map(str, args)])
    return capsys.readouterr().out.splitlines()


def test_a_dataset_is_described_without_decoding_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    depth = {"dtype": "image", "shape": [48, 64, 1], "names": ["height", "width", "channels"]}
    root = write_recording(
        tmp_path / "a", Layout(codec="libx264", lengths=(7, 5, 6, 8), more_features={"observation.images.depth": depth})
    )
    lines = printed(capsys, root, "--frames", "32x16", "--cameras", "front=top")
    assert lines[1:3] == [
        "LeRobotDataset v3.0 of so101_follower, 30 frames per second",
        "4 episodes, 26 frames, 0.0 min; an episode lasts 0.2 to 0.3 s, median 0.2 s",
    ]
    rows = [" ".join(line.replace("│", " ").split()) for line in lines]
    assert "front observation.images.top 64x48 video 32x16, stretch" in rows
    assert any(row.startswith("action gripper.pos as recorded ") for row in rows)
    assert "pick the cube 2 13" in rows
    assert "not used: observation.images.depth: a depth camera" in rows
    assert lines[-1] == "Nothing would be refused."
    assert not (tmp_path / "a.cache").exists()


def test_everything_that_would_be_refused_is_named_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_recording(
        tmp_path / "a", Layout(version="v2.1", codec="libx264", lengths=(7, 5, 6, 8, 5), lists="variable")
    )
    data = [root / f"data/chunk-000/episode_{number:06d}.parquet" for number in range(5)]
    action = np.array(pq.read_table(data[0])["action"].to_pylist())
    action[3, 5] = np.nan
    replace_columns(data[0], action=action.tolist())
    replace_columns(data[1], frame_index=[0, 1, 2, 2, 4])
    data[2].unlink()
    video = root / "videos/chunk-000/observation.images.top/episode_000003.mp4"
    video.write_bytes(video.read_bytes()[:-200])
    replace_columns(data[3], task_index=[7] * 8)
    with pytest.raises(SystemExit) as ended:
        main(["data", str(root)])
    assert ended.value.code == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "To leave out the episodes that would be refused: --without-episodes 0..3"
    refused = [line for line in lines if line.startswith("refused: ")]
    found = "\n".join(refused)
    for part in (
        "episode_000002.parquet is missing",
        "the first is nan in 'gripper.pos', episode 0, frame 3",
        "episode 1 of",
        "has frame 2 twice",
        "episode 3 of",
        "has frames of task 7, which meta/tasks does not have",
        "observation.images.top/episode_000003.mp4 is damaged",
    ):
        assert part in found
    assert len(refused) == 5
    rest = printed(capsys, root, "--without-episodes", "0..3", "--every-frame")
    assert rest[-2:] == ["left out: 0..3", "Nothing would be refused."]


def test_damage_within_a_file_is_found_by_decoding_every_frame(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = Layout(codec="libx264", lengths=(20, 20, 20), per_file=3)
    one, two = write_recording(tmp_path / "a", layout), write_recording(tmp_path / "b", layout)
    spoil_frames_of_episode_1(two / "videos/observation.images.wrist/chunk-000/file-000.mp4")
    assert printed(capsys, one, two)[-1] == "The datasets fit each other."
    with pytest.raises(SystemExit):
        main(["data", str(one), str(two), "--every-frame", "--without-episodes", f"{one}:0"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"To leave out the episodes that would be refused: --without-episodes {one}:0 {two}:1"
    (refused,) = [line for line in lines if line.startswith("refused: ")]
    assert "observation.images.wrist/chunk-000/file-000.mp4" in refused


def spoil_frames_of_episode_1(video: Path) -> None:
    """Zero the bytes of frames 25 to 30 of 60."""
    with av.open(str(video)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.pos is not None]
    content = bytearray(video.read_bytes())
    for position, size in packets[25:31]:
        content[position : position + size] = bytes(size)
    video.write_bytes(content)


def test_failed_episodes_are_counted_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_recording(tmp_path / "a", Layout(lengths=(7, 5, 6, 8)))
    add_column(root, "next.success", "bool", lambda episode, _: episode == 1, pa.bool_())
    lines = printed(capsys, root)
    assert lines[2].startswith("1 episode, 5 frames, ")
    said = "by next.success, 1 episode succeeded and 3 failed: 0 2..3 "
    assert said + "(left out; --with-failed uses them)" in lines and lines[-1] == "Nothing would be refused."
    change_info(root, lambda info: info.update(robot_type=None))
    lines = printed(capsys, root, "--with-failed")
    assert lines[1] == "LeRobotDataset v3.0, 30 frames per second"
    assert lines[2].startswith("4 episodes, 26 frames, ") and said + "(used all the same)" in lines


def test_a_repeated_episode_is_remarked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_recording(tmp_path / "a", Layout(version="v2.1", lengths=(5, 5)))
    one, two = (root / f"data/chunk-000/episode_{number:06d}.parquet" for number in range(2))
    table = pq.read_table(one)
    replace_columns(two, **{name: table[name].to_pylist() for name in ("action", "observation.state")})
    assert "episode 1 has the same states and actions as episode 0" in printed(capsys, root)


def test_datasets_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = (write_recording(tmp_path / name, Layout()) for name in "ab")
    assert printed(capsys, one, two)[-1] == "The datasets fit each other."
    change_info(two, lambda info: info["features"]["action"].update(names=list("abcdef")))
    with pytest.raises(SystemExit):
        main(["data", str(one), str(two)])
    assert "action names are ('a', " in capsys.readouterr().out


def test_the_last_line_trains_on_what_was_examined(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = str(write_recording(tmp_path / "a", Layout(lengths=(5, 5))))
    main(["data", "--frames", "32x16", root, "--every_frame"])
    said = capsys.readouterr().err
    assert said.startswith("llamarm data: reads all numbers, and decodes every frame\n")
    assert next_commands(said) == [["train", "sft_demo", "--data", root, "--frames", "32x16", "--out", "runs/a"]]


def test_a_folder_without_a_dataset_is_refused_and_those_in_it_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = f"llamarm: {tmp_path} holds no LeRobot dataset: meta/info.json is missing; name the folder that has it"
    for hint in ("", f", as {tmp_path}/a, {tmp_path}/b"):
        with pytest.raises(SystemExit) as ended:
            main(["data", str(tmp_path)])
        assert ended.value.code == 2
        assert capsys.readouterr() == ("", f"{said}{hint}\n")
        for name in ("a", "b"):
            (tmp_path / name / "meta").mkdir(parents=True, exist_ok=True)
            (tmp_path / name / "meta/info.json").touch()


def written(root: Path, **changes: Any) -> str:
    """One episode of our own of each task; returns the folder."""
    world = WillingSidesWorld(4)
    with DatasetWriter(root, world.world_spec, robot_type="sides") as writer:
        for trajectory in collect(ExpertPolicy(world), world, sides_specs(1), all_frames=True):
            writer.append(replace(trajectory, **changes))
    return str(root)


def test_our_demonstrations_in_a_world_of_no_recipe_are_cloned_in_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = written(tmp_path / "a")
    (tmp_path / "a" / HOW_PATH).write_text(json.dumps({"world": "sides:make_world", "device": "cpu", "noise_std": 0.0}))
    main(["data", root])
    (words,) = next_commands(capsys.readouterr().err)
    place = ["--demonstrations.world", "sides:make_world", "--demonstrations.tasks", "left", "right"]
    assert words == ["train", "sft_demo", *place, "--data", root, "--out", "runs/a"]


def test_our_recordings_without_a_success_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As `train --data` refuses them, which takes them beside others."""
    failed, good = written(tmp_path / "a", success=False), written(tmp_path / "b")
    with pytest.raises(SystemExit):
        main(["data", failed])
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "refused" in line]
    assert line.startswith(f"refused: no episode of {failed} was selected: none succeeded; record successes, or ")
    assert printed(capsys, failed, good)[-1] == "The datasets fit each other."
