"""Recordings of drives: every period at its time, and holds marked as such."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from math import nan
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Never

import cv2
import numpy as np
import pytest
from line_arm import FRESH_S, WORLD_SPEC, LineArm, Script, agent_for, always

from agent.robot.drive import Outcome
from agent.robot.types import Axis, Reading
from benchmarks.simulated import SimulatedClock
from envs.types import EpisodeSpec, VectorSpec
from rollout.dataset.batches import TrainingData
from rollout.dataset.read import DatasetReader, StoredEpisode
from rollout.dataset.spool import Spool
from rollout.dataset.write import UNFINISHED, DatasetWriter, finish_recording
from vla_model.config import Foreseen


@pytest.fixture
def arm() -> LineArm:
    return LineArm(SimulatedClock())


def recorded(root: Path, number: int = 0) -> StoredEpisode:
    return DatasetReader(root).episode(number)


EPISODE = EpisodeSpec(suite="line", task="drive", seed=0, variation="drive")


def add_row(recording: Spool, x: float) -> None:
    recording.add(
        frames={"front": np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)},
        state=np.array([x], np.float32),
        action=np.zeros(1, np.float32),
        localization=np.zeros(0, np.float32),
        intervention=False,
        held=False,
    )


def held(root: Path) -> list[int]:
    return np.flatnonzero(recorded(root).columns["held"]).tolist()


def test_rows_held_for_a_stale_camera_are_marked_and_not_cloned(arm: LineArm, tmp_path: Path) -> None:
    """No new frame from 0.95 to 1.95 s after the first period: 11 .. 19 are stale, and 20 waits for its chunk."""
    arm.clock.at(1.05, arm.freeze)
    arm.clock.at(2.05, arm.thaw)
    agent_for(arm, always(0.5)).run("go", 3.0, record=tmp_path, judge=lambda _: True)
    assert held(tmp_path) == list(range(11, 21))
    data = TrainingData([tmp_path], failed="excluded")
    assert data.num_rows == 30, "the frames of held rows still teach where things are"
    batch = data.gather(np.arange(30), 4, foreseen=Foreseen(steps=(2,)))
    assert batch.mask.sum(1).tolist() == [4] * 8 + [3, 2, 1] + [0] * 10 + [4] * 6 + [3, 2, 1]
    assert (batch.action[..., 0][batch.mask] == 0.5).all()
    assert batch.future_known is not None
    assert batch.future_known.tolist() == [True] * 9 + [False] * 12 + [True] * 9, "two steps on from 9 the arm is held"


@pytest.mark.parametrize("trouble", ["silent policy", "late chunk", "refused chunk", "broken observation"])
def test_every_kind_of_hold_is_marked(trouble: str, arm: LineArm, tmp_path: Path) -> None:
    answers = {"late chunk": 4, "refused chunk": 20, "silent policy": 50, "broken observation": 20}[trouble]
    policy = Script(lambda n, x: [nan if trouble == "refused chunk" and n in (4, 5) else 0.5] * answers)
    slow = trouble in ("silent policy", "late chunk")
    if trouble == "broken observation":
        broken = replace(arm.observe(), state=np.full(1, nan, np.float32), time_s=FRESH_S)
        arm.clock.at(0.45, lambda: setattr(arm, "frozen", broken))
        arm.clock.at(0.65, arm.thaw)
    agent = agent_for(arm, policy, lambda n: 0.7 if slow and n == 2 else 0.0)
    outcome = agent.run("go", 2.0, record=tmp_path, judge=lambda _: True)
    rested = sorted({i.period for i in outcome.interventions})
    assert trouble in {i.reason for i in outcome.interventions}
    assert held(tmp_path) == rested
    action = recorded(tmp_path).columns["action"]
    assert (np.flatnonzero(action == 0.0) == rested).all(), "of all others somebody wanted the action"


def test_a_policys_own_rest_action_is_not_marked_as_held(arm: LineArm, tmp_path: Path) -> None:
    agent_for(arm, always(0.0)).run("wait", 1.0, record=tmp_path, judge=lambda _: True)
    assert held(tmp_path) == []


def test_held_rows_of_a_takeover_are_not_cloned(arm: LineArm, tmp_path: Path) -> None:
    root = tmp_path / "drives"
    operator: Any = SimpleNamespace(action=lambda reading, rest: np.full(1, 0.25, np.float32))
    arm.clock.at(0.55, arm.freeze)
    arm.clock.at(1.05, arm.thaw)
    agent_for(arm, always(0.5), operator=operator).run("go", 1.5, record=root)
    # Last seen in period 4; that of period 5 is 50 ms old, those of 6 to 9 are older than a period.
    columns = recorded(root).columns
    assert np.flatnonzero(~columns["intervention"]).tolist() == held(root) == [6, 7, 8, 9]
    data = TrainingData([root], drives=[shutil.copytree(root, tmp_path / "copy")])
    assert [e["length"] for e in data.episodes] == [15, 15, 15], "the whole once, and two stretches by hand"


class Slow(LineArm):
    """An observation takes a period and a half, so every other period is missed."""

    def observe(self) -> Reading:
        reading = super().observe()
        self.clock.jump(self.clock.now_s() + 0.15)
        return reading


def test_missed_periods_are_rows_of_the_recording(tmp_path: Path) -> None:
    agent = agent_for(Slow(SimulatedClock()), always(0.5), stale_after_periods=3.0)
    outcome = agent.run("go", 3.0, record=tmp_path)
    columns = recorded(tmp_path).columns
    assert (outcome.num_steps, outcome.missed_periods) == (15, 15)
    assert columns["timestamp"] == pytest.approx(np.arange(29) / 10), "the last action was sent in the period of 2.8 s"
    assert held(tmp_path) == list(range(1, 28, 2))
    assert columns["action"].tolist() == [0.5, 0.0] * 14 + [0.5]
    assert columns["observation.state"][1::2].tolist() == columns["observation.state"][:-1:2].tolist(), "stands again"


def test_an_invalid_reading_is_recorded_as_a_repetition_of_the_last(arm: LineArm, tmp_path: Path) -> None:
    broken = replace(arm.observe(), state=np.full(1, nan, np.float32), frames={}, time_s=FRESH_S)
    arm.clock.at(0.35, lambda: setattr(arm, "frozen", broken))
    arm.clock.at(0.65, arm.thaw)
    agent_for(arm, always(0.5)).run("go", 1.0, record=tmp_path)
    episode = recorded(tmp_path)
    assert held(tmp_path) == [3, 4, 5, 6]
    assert episode.columns["observation.state"].tolist() == [0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 1.5, 1.5, 2.0, 2.5]
    assert (episode.frames["front"] == 7).all()


@pytest.mark.parametrize("who", ["operator", "watcher", "observe", "act"])
def test_after_any_exception_the_arm_rests_and_the_recording_is_an_episode(
    who: str, arm: LineArm, tmp_path: Path
) -> None:
    part: Any = getattr(arm, who, None)

    def fails(*arguments: Any) -> Any:
        if arm.clock.now_s() > 1.05:
            raise ValueError("a bug")
        return part(*arguments) if part else None

    parts: dict[str, Any] = {"operator": SimpleNamespace(action=fails), "watcher": fails}
    if part:
        setattr(arm, who, fails)
    agent = agent_for(arm, always(0.5), **{name: part for name, part in parts.items() if name == who})
    with pytest.raises(ValueError, match="a bug"):
        agent.run("go", 6.0, record=tmp_path)
    (row,) = DatasetReader(tmp_path).episodes
    assert (row["length"], row["success"], row["failure"]) == (
        11 if who == "watcher" else 10,
        False,
        "ValueError('a bug')",
    )
    assert len(arm.stops_s) == 1 and not arm.connected
    setattr(arm, who, part)
    assert agent_for(arm, always(0.5)).run("go", 0.5, record=tmp_path).num_steps == 5, "and the folder can be used"


def test_a_raising_judge_keeps_the_recording(arm: LineArm, tmp_path: Path) -> None:
    def judge(outcome: object) -> Never:
        del outcome
        raise ValueError("no keyboard")

    with pytest.raises(ValueError, match="no keyboard"):
        agent_for(arm, always(0.5)).run("go", 1.0, record=tmp_path, judge=judge)
    (row,) = DatasetReader(tmp_path).episodes
    assert (row["length"], row["failure"]) == (10, "time limit")


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (np.full(1, nan, np.float32), r"[nan] is not finite"),
        (np.full(1, 1e300), "[1e+300] is not finite"),
        (np.zeros(2, np.float32), "float32 (2,), expected float32 (1,)"),
        (None, "object (), expected float32 (1,)"),
    ],
)
def test_a_robot_that_returns_no_executed_action_ends_the_drive_and_keeps_the_recording(
    said: Any, words: str, arm: LineArm, tmp_path: Path
) -> None:
    act = arm.act
    arm.act = lambda action: act(action) if len(arm.sent) < 5 else (act(action), said)[1]
    outcome = agent_for(arm, always(0.5)).run("go", 2.0, record=tmp_path)
    assert outcome.ended == f"robot failed: ConnectionError('line does not return the executed action: {words}')"
    assert len(arm.stops_s) == 1
    columns = recorded(tmp_path).columns
    assert columns["action"].tolist() == [0.5] * 6
    assert held(tmp_path) == [5], "what it did then is not known"


def test_positions_beyond_the_action_range_are_recorded_and_clipped_for_training(tmp_path: Path) -> None:
    """Targets are -10 to 10, and the arm was moved to 12 by hand: it stays there, by an action of 1.2."""
    arm = LineArm(SimulatedClock())
    arm.spec = replace(arm.spec, axes=(Axis(state="x", relative=False, scale=10.0),))
    arm.frozen = replace(arm.observe(), state=np.array([12.0], np.float32), time_s=FRESH_S)
    operator: Any = SimpleNamespace(action=lambda reading, rest: rest)
    agent_for(arm, always(0.0), operator=operator).run("stay", 0.5, record=tmp_path)
    columns = recorded(tmp_path).columns
    assert columns["executed_action"] == pytest.approx(1.2)
    assert columns["action"].tolist() == [1.0] * 5


def test_video_of_odd_size_is_refused_before_anything_moves(arm: LineArm, tmp_path: Path) -> None:
    front = replace(arm.spec.world.cameras[0], height=5)
    arm.spec = replace(arm.spec, world=replace(arm.spec.world, cameras=(front,)))
    with pytest.raises(ValueError, match="even height and width, and camera 'front' has 5 x 6"):
        agent_for(arm, always(0.5)).run("go", 1.0, record=tmp_path, image_mode="video")
    assert arm.sent == []


def test_a_localization_that_is_not_the_spec_s_is_refused_before_anything_moves(arm: LineArm, tmp_path: Path) -> None:
    place = VectorSpec(names=("x",), units=("m",), low=(0.0,), high=(1.0,))
    arm.spec = replace(arm.spec, world=replace(arm.spec.world, localization=place))
    with pytest.raises(ValueError, match=r"the localization has shape \(0,\), expected \(1,\)"):
        agent_for(arm, always(0.5)).run("go", 1.0, record=tmp_path)
    assert arm.actions == []


def test_frames_in_a_reused_array_are_recorded_separately(arm: LineArm, tmp_path: Path) -> None:
    picture, seen = np.zeros((4, 6, 3), np.uint8), arm.observe

    def observe() -> Reading:
        picture[:] = round(100 * arm.clock.now_s())
        return replace(seen(), frames={"front": picture})

    arm.observe = observe
    agent_for(arm, always(0.5)).run("go", 1.0, record=tmp_path)
    assert recorded(tmp_path).frames["front"][:, 0, 0, 0].tolist() == list(range(10, 110, 10))


KILLED = """
import os, signal, sys
from pathlib import Path
from line_arm import LineArm, agent_for, always
from agent.robot.drive import Outcome
from benchmarks.simulated import SimulatedClock

def watch(period):
    if period.number == 200:
        os.kill(os.getpid(), signal.SIGKILL)

arm = LineArm(SimulatedClock())
agent_for(arm, always(0.5), watcher=watch).run("go", 60.0, record=Path(sys.argv[1]))
"""


@pytest.mark.parametrize("opened_by", ["the next drive", "training"])
def test_the_recording_of_a_killed_process_becomes_an_episode_when_the_dataset_is_opened(
    opened_by: str, arm: LineArm, tmp_path: Path
) -> None:
    root = tmp_path / "drives"
    path = os.pathsep.join((str(Path(__file__).parent), str(Path(__file__).parents[3])))
    dead = subprocess.run([sys.executable, "-c", KILLED, str(root)], env=os.environ | {"PYTHONPATH": path}, check=False)
    assert dead.returncode == -9
    assert len(DatasetReader(root).episodes) == 0
    if opened_by == "training":
        TrainingData([root])
    agent_for(arm, always(0.25)).run("go", 1.0, record=root)
    rows = DatasetReader(root).episodes
    assert [(r["tasks"], r["success"], r["length"]) for r in rows[1:]] == [(["go"], False, 10)]
    assert rows[0]["failure"].startswith("outcome unknown")
    # Rows that waited to be written are lost with the process: in simulated time up to 64, which come all at once.
    assert 200 - 64 - 1 <= rows[0]["length"] <= 201
    first = recorded(root).columns
    assert first["observation.state"] == pytest.approx(0.5 * np.arange(rows[0]["length"]))
    assert not (root / "meta/recording.arrows").exists()


def test_a_disk_failure_ends_the_drive_at_rest_and_keeps_the_rows_before(
    arm: LineArm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, append = itertools.count(), Spool._append

    def full(spool: Spool, row: dict[str, Any]) -> None:
        if next(count) >= 10:
            raise OSError(28, "No space left on device")
        append(spool, row)

    monkeypatch.setattr(Spool, "_append", full)
    outcome = agent_for(arm, always(0.5)).run("go", 600.0, record=tmp_path)
    assert outcome.ended.startswith("recording failed") and "No space left on device" in outcome.ended
    assert len(arm.stops_s) == 1
    (row,) = DatasetReader(tmp_path).episodes
    assert (row["length"], row["failure"]) == (10, outcome.ended)


def test_a_recording_that_cannot_be_converted_is_kept_and_the_original_error_is_raised(
    arm: LineArm, tmp_path: Path
) -> None:
    stranger = tmp_path / "data"

    def get_in_the_way(outcome: Outcome) -> bool:
        stranger.write_text("where the episode's folder should be")
        return outcome.ended == "time limit"

    with pytest.raises(OSError, match=rf"{stranger}.*; the recording is kept in .*recording\.arrows") as raised:
        agent_for(arm, always(0.5)).run("go", 1.0, record=tmp_path, judge=get_in_the_way)
    assert raised.value.errno in (errno.EEXIST, errno.ENOTDIR), "by which the command line knows what to say"
    stranger.unlink()
    finish_recording(tmp_path)
    assert [r["length"] for r in DatasetReader(tmp_path).episodes] == [10]


def test_a_full_disk_at_the_last_row_is_reported_as_such(
    arm: LineArm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, append = threading.Event(), Spool._append

    def full(spool: Spool, row: dict[str, Any]) -> None:
        if begun.wait(60):  # when every row was added
            raise OSError(errno.ENOSPC, "No space left on device")
        append(spool, row)

    def judge(outcome: Outcome) -> bool:
        begun.set()
        return outcome.ended == "time limit"

    monkeypatch.setattr(Spool, "_append", full)
    with pytest.raises(OSError, match=r"cannot be written: .*No space left on device") as raised:
        agent_for(arm, always(0.5)).run("go", 1.0, record=tmp_path, judge=judge)
    assert raised.value.errno == errno.ENOSPC
    assert len(arm.stops_s) == 1 and not arm.connected


def test_no_frame_is_compressed_during_a_drive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compressed: list[int] = []
    encode = cv2.imencode
    monkeypatch.setattr(cv2, "imencode", lambda *picture: compressed.append(1) or encode(*picture))
    with DatasetWriter(tmp_path, WORLD_SPEC, robot_type="line", interventions=True) as writer:
        recording = writer.record(EPISODE, "go", 0)
        for x in range(3):
            add_row(recording, x)
        recording.close()
        assert not compressed
    finish_recording(tmp_path)
    assert len(compressed) == 3


@pytest.mark.parametrize("damage", ["a flipped bit", "a cut"])
def test_the_rows_before_the_damage_of_a_recording_become_an_episode(damage: str, tmp_path: Path) -> None:
    for seed in range(10):
        root = tmp_path / str(seed)
        with DatasetWriter(root, WORLD_SPEC, robot_type="line", interventions=True) as writer:
            recording = writer.record(EPISODE, "go", 0)
            for x in range(20):
                add_row(recording, x)
            recording.close()
        content = bytearray(recording.path.read_bytes())
        ends = [0]  # of the schema, then of every row, each after eight bytes that begin with its length
        while ends[-1] < len(content):
            ends.append(ends[-1] + 8 + int.from_bytes(content[ends[-1] : ends[-1] + 4], "little"))
        place = int(np.random.default_rng(seed).integers(len(content)))
        if damage == "a cut":
            del content[place:]
        else:
            content[place] ^= 1 << seed % 8
        recording.path.write_bytes(content)
        finish_recording(root)
        whole = sum(end <= place for end in ends[2:])
        episodes = [(r["length"], r["failure"]) for r in DatasetReader(root).episodes]
        assert episodes == ([(whole, UNFINISHED)] if whole else [])
        if whole:
            assert recorded(root).columns["observation.state"] == pytest.approx(np.arange(whole))


def test_a_second_recording_that_is_refused_does_not_replace_the_first(tmp_path: Path) -> None:
    for number in range(2):
        with DatasetWriter(tmp_path, WORLD_SPEC, robot_type="line", interventions=True) as writer:
            recording = writer.record(EPISODE, "go", 0)
            add_row(recording, nan)
            with pytest.raises(ValueError, match=f"set aside in .*refused{number or ''}$"):
                writer.finish(recording, success=False, ended="by hand", duration_s=0.0)
    assert len(list((tmp_path / "meta").glob("*.refused*"))) == 2


def test_a_folder_in_which_another_process_records_is_refused(arm: LineArm, tmp_path: Path) -> None:
    def meanwhile(period: Any) -> None:
        if period.number == 5:
            other = LineArm(SimulatedClock())
            with pytest.raises(ValueError, match="is open in another writer"):
                agent_for(other, always(0.5)).run("go", 1.0, record=tmp_path)
            assert other.sent == []
            with pytest.raises(ValueError, match="has no episodes yet"):
                TrainingData([tmp_path])

    agent_for(arm, always(0.5), watcher=meanwhile).run("go", 1.0, record=tmp_path)
    assert [r["length"] for r in DatasetReader(tmp_path).episodes] == [10]
