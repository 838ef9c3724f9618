"""A policy of another program's recordings: trained, measured, served and driven, with one conversion throughout."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from edits import add_column, replace_columns
from line_arm import Script
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from serve.serving import client, infer, running
from so101 import NAMES, TASKS, Layout, picture, state_of, write_recording

from agent.cli import main
from agent.evaluation.open_loop import read_action_error
from agent.recipes import sft_tiny
from agent.robot.agent import Agent
from agent.robot.robots.lerobot_robot import LeRobotRobot
from agent.runs.policies import load_policy
from agent.runs.run_folder import RunFolder, start_run
from agent.serve.server import PolicyServer, ServerConfig
from agent.training.config import RunConfig
from agent.training.loop import train
from benchmarks.simulated import SimulatedClock, SimulatedInference
from envs.types import Observation
from rollout.dataset.batches import TrainingData
from rollout.dataset.foreign.reading import ReadingConfig
from vla_model.policy import VLAPolicy

LAYOUT = Layout(lengths=(12, 9, 14, 11, 10))
CAMERAS = {"front": (0, (48, 64)), "wrist": (1, (32, 48))}
"""{the policy's name: (number of the camera, its recorded size)}"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunConfig, RunFolder]:
    """A run of two updates; its world cannot be simulated."""
    folder = tmp_path_factory.mktemp("yours")
    root = write_recording(folder / "data", LAYOUT)
    tiny = sft_tiny()
    config = dataclasses.replace(
        tiny,
        data=(str(root),),
        reading=ReadingConfig(frames="32x24", fit="letterbox", cameras=("front=observation.images.top",)),
        learner=dataclasses.replace(tiny.learner, num_updates=2),
    )
    run = start_run(folder / "run", config)
    assert train(config, run) == (None, {}), "no success without a simulator"
    return config, run


@pytest.fixture
def policy(trained: tuple[RunConfig, RunFolder]) -> VLAPolicy:
    return load_policy(trained[1].root)


def frames_as_recorded(episode: int, step: int) -> dict[str, NDArray[np.uint8]]:
    return {name: picture(number, episode, step, *size) for name, (number, size) in CAMERAS.items()}


def test_the_action_error_of_the_held_out_episodes_is_written(trained: tuple[RunConfig, RunFolder]) -> None:
    found = read_action_error(trained[1].action_error)
    assert found["names"] == list(NAMES)
    assert 1 <= found["all"]["episodes"] < len(LAYOUT.lengths)
    assert set(found["all"]["mean_absolute_error"]) == {"policy", "last", "mean"}
    used = {row["episodes"] for row in trained[1].record["data"][0]["datasets"]}
    assert used == {len(LAYOUT.lengths) - found["all"]["episodes"]}


def test_a_policy_sees_recorded_live_and_served_frames_alike(
    trained: tuple[RunConfig, RunFolder], policy: VLAPolicy
) -> None:
    processor = policy.processor
    data = TrainingData(
        trained[0].data, world_spec=processor.world_spec, conversion=processor.conversion, reading=trained[0].reading
    )
    batch = data.gather(data.rows_of(1)[3:4], 2)  # of episode 1, step 3
    live = {name: frame[None] for name, frame in frames_as_recorded(1, 3).items()}
    for name, frames in processor.encode_frames(live).items():
        assert_array_equal(frames.numpy(), batch.frames[name])
    policy.begin([0], (TASKS[1],), (0,))
    seen = Observation(frames=batch.frames, state=batch.state, instruction=(TASKS[1],), step=np.array([0]))
    expected = policy.act([0], seen).actions[0]
    with running(PolicyServer(policy, ServerConfig(port=0), 2)) as url, client(url) as connection:
        said: dict[str, Any] = {f"observation/{name}": frame for name, frame in frames_as_recorded(1, 3).items()}
        answer = infer(connection, said | {"observation/state": state_of(1, 3), "prompt": TASKS[1]})
    assert_array_equal(answer, expected)


class So101:
    """An arm with LeRobot's interface that reaches every target, with the dataset's features."""

    name = "so101_follower"
    action_features: dict[str, Any] = dict.fromkeys(NAMES, float)
    observation_features: dict[str, Any] = action_features | {"top": (48, 64, 3), "wrist": (32, 48, 3)}

    def __init__(self) -> None:
        self.is_connected = False
        self.positions = dict(zip(NAMES, state_of(1, 3).tolist(), strict=True))
        self.sent: list[dict[str, float]] = []

    def connect(self) -> None:
        self.is_connected = True

    def get_observation(self) -> dict[str, Any]:
        return self.positions | {"top": picture(0, 1, 3, 48, 64), "wrist": picture(1, 1, 3, 32, 48)}

    def send_action(self, action: dict[str, float]) -> dict[str, float]:
        self.sent.append(action)
        self.positions |= action
        return action

    def disconnect(self) -> None:
        self.is_connected = False


def test_the_datasets_features_are_the_robots(policy: VLAPolicy) -> None:
    arm, clock = So101(), SimulatedClock()
    robot = LeRobotRobot(arm, processor=policy.processor, clock=clock)
    assert robot.spec.world == policy.processor.world_spec
    robot.connect()
    reading = robot.observe()
    live = {name: frame[None] for name, frame in frames_as_recorded(1, 3).items()}
    for name, frames in policy.processor.encode_frames(live).items():
        assert_array_equal(frames[0].numpy(), reading.frames[name])
    assert_array_equal(reading.state, state_of(1, 3))
    conversion = policy.processor.conversion
    assert conversion is not None
    sent = robot.act(np.array([-1, 1, 0, 0, 0, 0], np.float32))
    assert list(arm.sent[0].values())[:2] == [conversion.action_low[0], conversion.action_high[1]]
    np.testing.assert_allclose(sent, [-1, 1, 0, 0, 0, 0], atol=1e-6)
    robot.disconnect()


def test_the_policys_actions_reach_the_arm_in_recorded_units(policy: VLAPolicy) -> None:
    arm, clock = So101(), SimulatedClock()
    robot = LeRobotRobot(arm, processor=policy.processor, clock=clock)
    script = Script(lambda n, x: np.full((1, 8, 6), 0.5, np.float32))
    make_inference = partial(SimulatedInference, clock=clock, latency_s=lambda n: 0.0)
    Agent(script, robot, clock=clock, make_inference=make_inference).run(TASKS[1], 5 / 30)
    conversion = policy.processor.conversion
    assert conversion is not None
    np.testing.assert_allclose(list(arm.sent[1].values()), conversion.recorded(np.full(6, 0.5)), rtol=1e-6)


def test_an_arm_with_a_fractional_rate_is_driven_and_recorded(policy: VLAPolicy, tmp_path: Path) -> None:
    arm, clock = So101(), SimulatedClock()
    world = dataclasses.replace(policy.processor.world_spec, control_dt_s=1 / 29.97)
    policy.processor.world_spec = world
    robot = LeRobotRobot(arm, processor=policy.processor, clock=clock, frozen_after_s=np.inf)
    script = Script(lambda n, x: np.full((1, 8, 6), 0.5, np.float32))
    make_inference = partial(SimulatedInference, clock=clock, latency_s=lambda n: 0.0)
    agent = Agent(script, robot, clock=clock, make_inference=make_inference)
    agent.run(TASKS[1], 1.0, record=tmp_path / "drives", judge=lambda outcome: True)
    data = TrainingData([tmp_path / "drives"])
    assert data.world_spec == world
    assert data.num_rows == 30
    more = write_recording(tmp_path / "more", dataclasses.replace(LAYOUT, fps=29.97))
    with pytest.raises(
        ValueError, match=r"camera 'front' is 24x32, (.*\n)*.*--frames 32x24 reads the recordings at its"
    ):
        TrainingData([more], drives=[tmp_path / "drives"], reading=ReadingConfig(cameras=("front=top",)))
    joined = TrainingData(
        [more],
        drives=[tmp_path / "drives"],
        world_spec=world,
        conversion=policy.processor.conversion,
    )
    assert joined.num_rows == 30 + sum(LAYOUT.lengths)


def test_an_arm_with_other_features_is_refused(policy: VLAPolicy) -> None:
    arm = So101()
    arm.action_features = dict.fromkeys(NAMES[:-1], float)
    with pytest.raises(ValueError, match=r"action 'gripper.pos' is not of this arm"):
        LeRobotRobot(arm, processor=policy.processor)
    arm.action_features = dict.fromkeys((*NAMES, "base.vel"), float)
    with pytest.raises(ValueError, match=r"the policy commands only .*; the arm also has base.vel"):
        LeRobotRobot(arm, processor=policy.processor)
    arm = So101()
    arm.observation_features = {name: shape for name, shape in arm.observation_features.items() if name != "top"}
    with pytest.raises(ValueError, match=r"camera 'front' is not of this arm; there are: wrist"):
        LeRobotRobot(arm, processor=policy.processor)
    with pytest.raises(ValueError, match=r"ranges lacks shoulder_pan.pos"):
        LeRobotRobot(So101(), control_dt_s=0.1)


def test_cameras_of_another_dataset_are_renamed_for_a_policy(
    trained: tuple[RunConfig, RunFolder], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cameras = {"observation.image": (48, 64), "observation.images.wrist": (32, 48)}
    root = write_recording(tmp_path / "data", dataclasses.replace(LAYOUT, cameras=cameras))
    args = ["eval", str(trained[1].root), "--data", str(root), "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit):
        main(args)
    assert (
        "camera 'front' is missing; cameras: image, wrist (--cameras front=... renames one)" in capsys.readouterr().err
    )
    main([*args, "--cameras", "front=observation.image"])
    assert read_action_error(tmp_path / "out/action_error.json")["all"]["episodes"] == len(LAYOUT.lengths)


def test_a_resumed_run_keeps_its_conversion_when_the_recordings_grew(
    trained: tuple[RunConfig, RunFolder], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained[1].root, tmp_path / "run")
    write_recording(tmp_path / "data", dataclasses.replace(LAYOUT, lengths=(*LAYOUT.lengths, 40, 40)))
    run = RunFolder(tmp_path / "run")
    record = run.record
    record["config"]["data"] = [str(tmp_path / "data")]
    record["config"]["learner"]["num_updates"] = 3
    run.record_file.write_text(json.dumps(record))
    config = dataclasses.replace(
        trained[0],
        data=(str(tmp_path / "data"),),
        learner=dataclasses.replace(trained[0].learner, num_updates=3),
    )
    capsys.readouterr()
    train(config, start_run(run.root, config, resume=True))
    first, last = (
        json.loads((run.checkpoint(step) / "pretrained_model/processor.json").read_text()) for step in (2, 3)
    )
    assert first == last
    assert "The data changed" in capsys.readouterr().err


def test_training_on_other_recordings_goes_on_from_the_policy_in_its_units(
    trained: tuple[RunConfig, RunFolder], tmp_path: Path
) -> None:
    root = write_recording(tmp_path / "data", dataclasses.replace(LAYOUT, lengths=(20, 30)))
    config = dataclasses.replace(trained[0], data=(str(root),), init=str(trained[1].root), reading=ReadingConfig())
    run = start_run(tmp_path / "run", config)
    train(config, run)
    old, new = (
        json.loads((folder.checkpoint(2) / "pretrained_model/processor.json").read_text())
        for folder in (trained[1], run)
    )
    assert old == new


def test_episodes_are_left_out_of_a_run_and_of_its_measurements(
    trained: tuple[RunConfig, RunFolder], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Named when the run is resumed, as the one recorded since is bad; evaluation leaves it out by itself."""
    shutil.copytree(trained[1].root, tmp_path / "run")
    root = write_recording(tmp_path / "data", dataclasses.replace(LAYOUT, lengths=(*LAYOUT.lengths, 40)))
    spoil = pq.read_table(last := root / "data/chunk-000/file-001.parquet")
    action = np.array(spoil["action"].to_pylist())
    action[-1, 0] = np.nan
    replace_columns(last, action=action.tolist())
    run = RunFolder(tmp_path / "run")
    record = run.record
    record["config"]["data"] = [str(root)]
    record["config"]["learner"]["num_updates"] = 3
    run.record_file.write_text(json.dumps(record))
    config = dataclasses.replace(
        trained[0], data=(str(root),), learner=dataclasses.replace(trained[0].learner, num_updates=3)
    )
    with pytest.raises(ValueError, match=r"episode 5, frame 39; leave such episodes out \(--without-episodes"):
        train(config, start_run(run.root, config, resume=True))
    evaluated = ["eval", str(run.root), "--data", str(root), "--out", str(tmp_path / "out")]
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(evaluated)
    refused = capsys.readouterr().err
    assert "episode 5, frame 39; leave such episodes out" in refused
    assert refused.count("\n") == 1, "what it will do is said once nothing is refused"
    config = dataclasses.replace(config, reading=dataclasses.replace(config.reading, without_episodes=("5",)))
    capsys.readouterr()
    train(config, start_run(run.root, config, resume=True))
    assert f"left out of {root}: episodes 5\n" in capsys.readouterr().err
    assert run.record["config"]["reading"]["without_episodes"] == ["5"]
    held_out = read_action_error(run.action_error)["all"]["episodes"]
    capsys.readouterr()
    main(evaluated)
    said = f"llamarm eval: the policy was trained on {root}; only their held-out episodes are used\n"
    assert capsys.readouterr().err.startswith(said)
    assert read_action_error(tmp_path / "out/action_error.json")["all"]["episodes"] == held_out
    other = write_recording(tmp_path / "other", LAYOUT)
    main(["eval", str(run.root), "--data", str(other), "--out", str(tmp_path / "o"), "--without-episodes", "1..3"])
    assert read_action_error(tmp_path / "o/action_error.json")["all"]["episodes"] == 2


def test_failed_episodes_are_left_out_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_recording(tmp_path / "data", LAYOUT)
    add_column(root, "next.success", "bool", lambda episode, _: episode != 3, pa.bool_())
    tiny = sft_tiny()
    config = dataclasses.replace(
        tiny, data=(str(root),), learner=dataclasses.replace(tiny.learner, num_updates=2), save_every=2
    )
    train(config, run := start_run(tmp_path / "run", config))
    said = f"left out of {root}, because they failed: episodes 3 (--with-failed)"
    assert said in capsys.readouterr().err
    measured = read_action_error(run.action_error)["all"]["episodes"]
    main(["eval", str(run.root), "--data", str(root), "--out", str(tmp_path / "o"), "--with-failed"])
    assert read_action_error(tmp_path / "o/action_error.json")["all"]["episodes"] >= measured


def test_other_programs_recordings_join_as_drives_or_auxiliary_data_if_they_fit(
    trained: tuple[RunConfig, RunFolder], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = {"observation.images.side": (16, 16)}
    side = write_recording(tmp_path / "side", dataclasses.replace(LAYOUT, cameras={**LAYOUT.cameras, **more}))
    config = dataclasses.replace(trained[0], auxiliary=(str(side),))
    run = start_run(tmp_path / "run", config)
    train(config, run)
    rows = {Path(entry["dataset"]).name: entry["rows"] for entry in run.record["data"][0]["datasets"]}
    assert rows["side"] == sum(LAYOUT.lengths)
    assert f"not used of {side}: observation.images.side: a camera that the first " in capsys.readouterr().err
    first = read_action_error(trained[1].action_error)
    assert read_action_error(run.action_error)["spread"] == first["spread"], "ranges and statistics are of --data alone"
    fast = write_recording(tmp_path / "fast", dataclasses.replace(LAYOUT, fps=50, names=list("abcdef")))
    refused = r"fast is of another kind.*\n  state names are .*\n  action names .*\n  fps is 50"
    for place in ("drives", "auxiliary"):
        config = dataclasses.replace(trained[0], **{place: (str(fast),)})
        run = start_run(tmp_path / place, config)
        with pytest.raises(ValueError, match=refused):
            train(config, run)
    config = dataclasses.replace(trained[0], drives=(str(side),))
    with pytest.raises(ValueError, match=r"side has no success flags.* name it with --data"):
        train(config, start_run(tmp_path / "drives-too", config))


@pytest.mark.parametrize("place", ["data", "drives", "auxiliary", "resumed", "continued", "evaluated"])
def test_recordings_in_other_units_than_the_policys_are_refused(
    trained: tuple[RunConfig, RunFolder], tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    root = write_recording(tmp_path / "radians", dataclasses.replace(LAYOUT, lists="variable"))
    for file in root.glob("data/*/*.parquet"):
        for name in ("action", "observation.state"):
            values = np.deg2rad(np.array(pq.read_table(file)[name].to_pylist()))
            replace_columns(file, **{name: values.tolist()})
    said = r"radians seems to be in other units than .*:\n  state shoulder_pan.pos: -0.\d+ to 0.\d+, there -\d+"
    if place == "evaluated":
        with pytest.raises(SystemExit):
            main(["eval", str(trained[1].root), "--data", str(root), "--out", str(tmp_path / "out")])
        assert re.search(said, capsys.readouterr().err)
        return
    run = tmp_path / "run"
    given = (*trained[0].data, str(root)) if place == "data" else (str(root),)
    config = dataclasses.replace(trained[0], **{"data" if place in ("resumed", "continued") else place: given})
    if place == "continued":
        config = dataclasses.replace(config, init=str(trained[1].root))
    if place == "resumed":
        shutil.copytree(trained[1].root, run)
        record = RunFolder(run).record
        record["config"]["data"] = list(given)
        RunFolder(run).record_file.write_text(json.dumps(record))
    with pytest.raises(ValueError, match=said):
        train(config, start_run(run, config, resume=place == "resumed"))
    assert not (tmp_path / "radians.cache").exists()
