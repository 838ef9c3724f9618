"""A page's commands, executed in real time by the driving thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from line_arm import LineArm, Script, always

from agent.console.drive_session import DriveSession, Status
from agent.robot.clock import WallClock
from rollout.dataset.read import DatasetReader

DT_S = 0.05
PATIENCE_S = 100.0


class RealArm(LineArm):
    def __init__(self) -> None:
        super().__init__(WallClock(), dt_s=DT_S)


Maker = Callable[..., DriveSession]


@pytest.fixture
def make_session() -> Iterator[Maker]:
    made: list[DriveSession] = []

    def make(policy: Any, arm: Any, **more: Any) -> DriveSession:
        made.append(DriveSession(policy, arm, **more))
        return made[-1]

    yield make
    for session in made:
        session.close()


def wait_for(session: DriveSession, what: Callable[[Status], object]) -> Status:
    """The status, once a condition holds."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not what(session.status):
        assert time.monotonic() < deadline_s, session.status
        time.sleep(0.002)
    return session.status


def test_a_started_drive_runs_and_updates_the_status(make_session: Maker) -> None:
    arm, policy = RealArm(), always(0.25)
    session = make_session(policy, arm)
    assert session.status.state == "idle" and not session.busy
    session.start("go", 0.5)
    assert session.busy
    driving = wait_for(session, lambda s: s.state == "driving")
    assert driving.instruction == "go" and driving.period is not None
    session.mark(True)
    status = wait_for(session, lambda s: s.outcome is not None and s.state == "idle")
    assert status.outcome is not None
    assert (status.outcome.success, status.outcome.ended) == (True, "stopped: marked on the page")
    assert policy.instructions == ["go"]
    assert not session.busy and not arm.connected


def test_a_stop_rests_the_arm_before_another_period_and_only_one_drive_runs_at_a_time(make_session: Maker) -> None:
    arm = RealArm()
    session = make_session(always(0.25), arm)
    session.start("go", 60.0)
    session.start("go elsewhere", 60.0)
    wait_for(session, lambda s: s.period is not None and s.period.number >= 3)
    session.stop()
    num_sent = len(arm.sent) - len(arm.stops_s)
    status = wait_for(session, lambda s: s.state == "judging")
    session.mark(False)
    assert len(arm.sent) - len(arm.stops_s) <= num_sent + 1, "at most the action that was under way comes"
    assert status.outcome is not None and status.outcome.ended == "stopped: on the page"
    status = wait_for(session, lambda s: s.state == "idle")
    assert status.num_orders == 1 and status.outcome is not None and status.outcome.success is False


def test_a_stop_before_the_first_period_moves_nothing(make_session: Maker) -> None:
    arm = RealArm()
    session = make_session(always(0.25), arm)
    session.start("go", 60.0)
    session.stop()
    wait_for(session, lambda s: s.outcome is not None and s.state == "idle")
    assert len(arm.sent) == len(arm.stops_s), "it was sent nothing but stops"
    session.start("go", 0.2)
    status = wait_for(session, lambda s: s.state == "judging")
    session.mark(True)
    assert status.outcome is not None and status.outcome.ended == "time limit", "the next drive is another matter"


def test_without_a_success_flag_the_drive_is_judged_on_the_page(make_session: Maker, tmp_path: Path) -> None:
    session = make_session(always(0.25), RealArm())
    for success in (True, False):
        session.start("go", 0.2, record=tmp_path / "drives")
        wait_for(session, lambda s: s.state == "judging")
        session.mark(success)
        status = wait_for(session, lambda s: s.state == "idle")
        assert status.recorded == str(tmp_path / "drives")
    assert [row["success"] for row in DatasetReader(tmp_path / "drives").episodes] == [True, False]


def test_taking_over_ends_with_the_drive(make_session: Maker) -> None:
    arm = RealArm()
    session = make_session(always(0.25), arm)
    session.start("go", 60.0)
    wait_for(session, lambda s: s.period is not None)
    session.takeover.take()
    by_hand = wait_for(session, lambda s: s.period is not None and s.period.by_hand).period
    assert by_hand is not None and by_hand.sent[0] == 0.0
    session.takeover.nudge(0, 0.5)
    wait_for(session, lambda s: s.period is not None and s.period.sent[0] > 0.3)
    session.mark(True)
    wait_for(session, lambda s: s.state == "idle")
    assert not session.takeover.wanted


def test_a_failed_order_is_reported_and_the_next_one_runs(make_session: Maker, tmp_path: Path) -> None:
    (tmp_path / "strange").write_text("no dataset")
    session = make_session(always(0.25), RealArm())
    session.start("go", 0.2, record=tmp_path)
    status = wait_for(session, lambda s: s.num_orders == 1)
    assert status.trouble is not None and "is not empty" in status.trouble
    session.start("go", 0.2)
    status = wait_for(session, lambda s: s.state == "judging")
    assert status.trouble is None
    session.mark(True)


def test_a_policy_that_raises_ends_its_drive(make_session: Maker) -> None:
    def broken(n: int, x: float) -> list[float]:
        del n, x
        raise RuntimeError("no weights")

    session = make_session(Script(broken), RealArm())
    session.start("go", 1.0)
    status = wait_for(session, lambda s: s.outcome is not None and s.state == "idle")
    assert status.outcome is not None and "no weights" in status.outcome.ended
