"""An agent in real time, with real threads and signals, before, during and after a drive."""

from __future__ import annotations

import os
import signal
import threading
import time
from math import inf, nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from line_arm import LineArm, Script, agent_for, always
from numpy.typing import NDArray

from agent.robot.agent import Agent
from agent.robot.clock import WallClock
from benchmarks.simulated import SimulatedClock
from rollout.dataset.read import DatasetReader


class RealArm(LineArm):
    """The same arm in real time."""

    def __init__(self, dt_s: float = 0.05) -> None:
        super().__init__(WallClock(), dt_s=dt_s)


def test_the_loop_keeps_its_rate_during_inference() -> None:
    arm = RealArm(dt_s=0.1)
    sent_meanwhile: list[int] = []

    def chunk(n: int, x: float) -> list[float]:
        """Answers, but for the first time, once another action was sent: never, if the loop waited for it."""
        del x
        before, until_s = len(arm.sent), time.monotonic() + 60
        while n and len(arm.sent) == before and time.monotonic() < until_s:
            time.sleep(0.002)
        sent_meanwhile.append(len(arm.sent) - before)
        return [0.5] * 8

    outcome = Agent(Script(chunk), arm).run("go", 2.0)
    periods = np.array([s for s, _ in arm.sent[:-1]]) / 0.1
    assert outcome.num_steps <= 20 <= outcome.num_steps + outcome.missed_periods
    assert (periods - periods[0] > np.arange(len(periods)) - 1).all(), "one action per period; a late one may be missed"
    assert len(sent_meanwhile) > 1 and min(sent_meanwhile[1:]) >= 1


def test_a_stop_from_another_thread_ends_the_wait_at_once() -> None:
    arm = RealArm(dt_s=60.0)
    agent = Agent(always(0.5), arm)
    thrown_s: list[float] = []

    def stop() -> None:
        thrown_s.append(time.monotonic())
        agent.stop("another thread")

    threading.Timer(0.8, stop).start()
    outcome = agent.run("go", 600.0)
    assert outcome.ended == "stopped: another thread"
    assert arm.stops_s[0] - thrown_s[0] < 30.0, "well before the period of 60 s was over"


@pytest.mark.usefixtures("nothing_ignored")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_stops_the_robot_and_the_second_has_its_default_effect(number: signal.Signals) -> None:
    class Told(RealArm):
        """The signal comes while it is driven, which is when it is handled."""

        def act(self, action: NDArray[np.float32]) -> NDArray[np.float32]:
            if len(self.sent) == 3:
                os.kill(os.getpid(), number)
            return super().act(action)

    arm, before = Told(), signal.getsignal(number)
    outcome = Agent(always(0.5), arm).run("go", 10.0)
    assert outcome.ended == f"stopped: {number.name}"
    assert arm.stops_s and not arm.connected
    assert signal.getsignal(number) is before


def test_an_ignored_signal_does_not_stop_the_robot() -> None:
    class Told(RealArm):
        def act(self, action: NDArray[np.float32]) -> NDArray[np.float32]:
            os.kill(os.getpid(), signal.SIGHUP)
            return super().act(action)

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        outcome = Agent(always(0.5), Told()).run("go", 0.5)
        assert not outcome.ended.startswith("stopped")
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_hanging_policy_delays_neither_a_period_nor_the_end() -> None:
    arm, forever = RealArm(), threading.Event()

    def chunk(n: int, x: float) -> list[float]:
        del x
        if n == 3:
            forever.wait()
        return [0.5] * 20

    outcome = Agent(Script(chunk), arm).run("go", 1.0)
    forever.set()
    assert outcome.ended == "time limit"
    assert outcome.num_steps <= 20 <= outcome.num_steps + outcome.missed_periods
    assert arm.actions[-2:] == [0.0, 0.0], "it rests before it is stopped"
    assert {i.reason for i in outcome.interventions} == {"silent policy"}


class Checked(Script):
    """A policy whose processor has other cameras."""

    class processor:  # noqa: N801
        @staticmethod
        def check(spec: object) -> None:
            del spec
            raise ValueError("camera 'wrist' is missing; cameras: front")


def test_cameras_are_checked_against_the_processor_before_anything_connects() -> None:
    arm = LineArm(SimulatedClock())
    with pytest.raises(ValueError, match="camera 'wrist' is missing"):
        agent_for(arm, Checked(lambda n, x: [0.0]))


def test_every_drive_is_appended_with_its_judges_success_flag(tmp_path: Path) -> None:
    requested: list[Any] = []

    def judge(outcome: Any) -> bool:
        requested.append(outcome.success)
        return True

    for _ in range(2):
        arm = LineArm(SimulatedClock())
        agent_for(arm, always(0.25)).run("go", 1.0, record=tmp_path, judge=judge)
    arm = LineArm(SimulatedClock())
    arm.clock.at(0.65, arm.break_cable)
    agent_for(arm, always(0.25)).run("come", 1.0, record=tmp_path)
    rows = DatasetReader(tmp_path).episodes
    assert requested == [None, None], "the arm has no success flag"
    assert [(r["tasks"], r["success"], r["length"]) for r in rows] == [
        (["go"], True, 10),
        (["go"], True, 10),
        (["come"], False, 6),
    ]
    assert rows[2]["failure"] == "robot failed: ConnectionError('the cable is out')"
    assert [r["policy_version"] for r in rows] == [3, 3, 3]
    episode = DatasetReader(tmp_path).episode(0)
    assert episode.columns["observation.state"] == pytest.approx(0.25 * np.arange(10))
    assert episode.columns["action"] == pytest.approx(0.25)


def test_a_drive_stopped_before_its_first_period_is_not_recorded(tmp_path: Path) -> None:
    arm = LineArm(SimulatedClock())
    agent = agent_for(arm, always(0.25), lambda n: 5.0)
    arm.clock.at(1.0, agent.stop)
    assert agent.run("go", 1.0, record=tmp_path).ended == "stopped: by hand"
    assert len(DatasetReader(tmp_path).episodes) == 0


def test_a_dataset_of_another_kind_is_refused_before_anything_moves(tmp_path: Path) -> None:
    agent_for(LineArm(SimulatedClock()), always(0.25)).run("go", 1.0, record=tmp_path)
    arm = LineArm(SimulatedClock(), dt_s=0.05)
    with pytest.raises(ValueError, match="fps: 10, not 20"):
        agent_for(arm, always(0.25)).run("go", 1.0, record=tmp_path)
    assert arm.sent == []


@pytest.mark.parametrize("blank", ["", " ", "\n\t"])
def test_a_blank_instruction_is_refused_before_anything_moves(blank: str, tmp_path: Path) -> None:
    arm = LineArm(SimulatedClock())
    with pytest.raises(ValueError, match="expected text that says what to do"):
        agent_for(arm, always(0.25)).run(blank, 1.0, record=tmp_path / "drives")
    assert arm.sent == [] and not (tmp_path / "drives").exists()


@pytest.mark.parametrize("seconds", [0.0, -1.0, nan])
def test_an_invalid_time_limit_is_refused_before_anything_moves(seconds: float) -> None:
    arm = LineArm(SimulatedClock())
    with pytest.raises(ValueError, match=f"seconds is {seconds}, expected a number above 0"):
        agent_for(arm, always(0.25)).run("go", seconds)
    assert arm.sent == []


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"blend_decay": nan}, "blend-decay is nan"),
        ({"correction": -0.1}, "correction is -0.1"),
        ({"max_moves_ahead": 0.0}, "max-moves-ahead is 0.0"),
        ({"stale_after_periods": nan}, "stale-after-periods is nan"),
        ({"answer_within_periods": -1.0}, "answer-within-periods is -1.0"),
        ({"first_answer_within_s": inf}, "first-answer-within-s is inf"),
        ({"refused_chunks": 0}, "refused-chunks is 0"),
    ],
)
def test_an_invalid_loop_config_is_refused_by_the_agent(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        agent_for(LineArm(SimulatedClock()), always(0.25), **wrong)
