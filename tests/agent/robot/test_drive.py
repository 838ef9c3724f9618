"""The control loop in simulated time: which action is sent in which period, with every latency and every fault.

Before the first period there is one in which the loop waits for the first answer: with no latency, motion begins at
0.1 s on the clock.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from math import nan
from types import SimpleNamespace
from typing import Any, Never

import numpy as np
import pytest
from line_arm import DT_S, FRESH_S, LineArm, Script, agent_for, always, drive
from numpy.typing import NDArray

from agent.robot.types import Axis, Limits, Reading, Watch
from benchmarks.simulated import SimulatedClock
from envs.types import Observation
from vla_model.types import ActionChunk

START_S = DT_S


@pytest.fixture
def arm() -> LineArm:
    return LineArm(SimulatedClock())


class CountingArm(LineArm):
    """Its state is the number of moves instead of the position."""

    def observe(self) -> Reading:
        moves = sum(a != 0.0 for _, a in self.sent)
        return replace(super().observe(), state=np.array([moves], np.float32))


def numbered(length: int) -> Script:
    """Action of move m is (m + 1) / 100, whichever chunk it comes from."""
    return Script(lambda n, moves: [(moves + i + 1) / 100 for i in range(length)])


@pytest.mark.parametrize("latency", [0.0, 0.5, 1.0, 2.0, 3.0])
def test_consecutive_chunks_are_continuous_at_any_latency(latency: float) -> None:
    arm = CountingArm(SimulatedClock())
    outcome = drive(arm, numbered(8), 2.0, lambda n: latency * DT_S)
    assert arm.actions == [round((m + 1) / 100, 4) for m in range(20)]
    assert outcome.interventions == ()
    assert (outcome.ended, outcome.num_steps, outcome.missed_periods) == ("time limit", 20, 0)


def test_periods_are_equally_long_and_the_robot_is_stopped_at_the_end(arm: LineArm) -> None:
    outcome = drive(arm, always(1.0), 1.0)
    assert [s for s, _ in arm.sent] == pytest.approx([START_S + i * DT_S for i in range(11)])
    assert arm.stops_s == [pytest.approx(START_S + 1.0)]
    assert arm.x(99.0) == pytest.approx(10.0)
    assert outcome.lateness_ms.max() == pytest.approx(0.0, abs=1e-6)
    assert not arm.connected


def test_the_arm_slows_down_with_the_policys_latency(arm: LineArm) -> None:
    """With a latency of 3 periods, chunks are used until 6 after their observation: at half the pace, 3 moves."""
    outcome = drive(arm, always(1.0), 2.0, lambda n: 3 * DT_S if 1 <= n <= 4 else 0.0, max_moves_ahead=3.0)
    # Requested in periods 0, 3, 6 and 9 and received three later; that of period 12 is answered at once.
    assert arm.actions == [1.0] * 3 + [0.5] * 10 + [1.0] * 7
    assert outcome.interventions == ()


def test_while_a_chunk_is_late_the_old_one_is_finished_then_the_arm_holds() -> None:
    """Chunks of 4. Answer 0 comes at once; the question of period 0 is answered in period 6, so moves 0 .. 3 come from
    the first chunk, periods 4 and 5 hold, and move 4 would be beyond the second chunk too (requested before any move).
    The next is requested in period 6 and received in period 7.
    """
    arm = CountingArm(SimulatedClock())
    outcome = drive(arm, numbered(4), 1.0, lambda n: 6 * DT_S if n == 1 else 0.0, answer_within_periods=99)
    assert arm.actions == [0.01, 0.02, 0.03, 0.04, 0, 0, 0, 0.05, 0.06, 0.07]
    assert [(i.period, i.reason) for i in outcome.interventions] == [(p, "late chunk") for p in (4, 5, 6)]


def test_a_late_chunk_is_used_from_the_arms_current_move() -> None:
    """Chunks of 6, the next in period 8: 6 moves, 2 holds; its observation was after 3 moves, so 3 are left."""
    arm = CountingArm(SimulatedClock())
    latencies = {1: 0.0, 2: 0.0, 3: 6 * DT_S}
    outcome = drive(arm, numbered(6), 1.2, lambda n: latencies.get(n, 0.0), answer_within_periods=99)
    # Chunk 3 is requested in period 2 after 2 moves and received in period 8; chunk 2 was after 1 and ends with move 6.
    assert arm.actions[:10] == [0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0, 0.08, 0.09]
    assert [i.period for i in outcome.interventions] == [7]


@pytest.mark.parametrize(("dt_s", "held"), [(0.1, []), (0.05, [7, 8, 9, 10, 11])])
def test_a_latency_spike_of_half_a_second_is_bridged_at_10_hertz_and_held_at_20(dt_s: float, held: list[int]) -> None:
    """The question of period 2 is answered 0.5 s later: in period 7 at 10 Hz, in period 12 at 20 Hz. From the fifth
    period of waiting on, the arm holds, though the old chunk had more to say.
    """
    arm = LineArm(SimulatedClock(), dt_s=dt_s)
    outcome = drive(arm, always(1.0, length=20), 20 * dt_s, lambda n: 0.5 if n == 3 else 0.0)
    assert [(i.period, i.reason) for i in outcome.interventions] == [(p, "silent policy") for p in held]
    assert arm.x(99.0) == pytest.approx(20 - len(held))


def test_after_a_policys_timeout_the_arm_holds_within_two_periods(arm: LineArm) -> None:
    outcome = drive(arm, always(1.0, length=50), 3.0, lambda n: 1e9 if n == 1 else 0.0)
    # Asked in period 0; periods 1 .. 4 go on with the old chunk, from period 5 the arm holds.
    assert arm.actions == [1.0] * 5 + [0.0] * 25
    assert arm.x(99.0) == pytest.approx(5.0)
    assert {i.reason for i in outcome.interventions} == {"silent policy"}
    assert outcome.ended == "time limit"


def test_a_policy_that_raises_ends_the_drive_with_the_arm_at_rest(arm: LineArm) -> None:
    def chunk(n: int, x: float) -> list[float]:
        del x
        if n == 4:
            raise RuntimeError("out of memory")
        return [1.0] * 20

    outcome = drive(arm, Script(chunk), 3.0)
    # Chunk 4 is requested in period 3, and the policy's failure is received in period 4.
    assert outcome.ended == "policy failed: RuntimeError('out of memory')"
    assert arm.actions == [1.0] * 4
    assert arm.stops_s == [pytest.approx(START_S + 4 * DT_S)]
    assert arm.x(99.0) == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ([1.0, nan, 1.0], "action 'dx', step 1, is nan"),
        (np.ones((1, 3, 2), np.float32), r"shape \(1, 3, 2\), expected \(1, K >= 1, 1\)"),
        (np.ones((2, 3, 1), np.float32), r"shape \(2, 3, 1\)"),
        ([], r"shape \(1, 0, 1\)"),
    ],
)
def test_an_invalid_chunk_is_refused_and_the_arm_holds_until_a_valid_one(arm: LineArm, bad: object, words: str) -> None:
    outcome = drive(arm, Script(lambda n, x: bad if n in (4, 5) else [1.0] * 20), 1.0)
    # Requested in periods 3 and 4, refused in 4 and 5; the valid one is received in 6.
    assert arm.actions == [1.0] * 4 + [0.0] * 2 + [1.0] * 4
    assert {i.reason for i in outcome.interventions} == {"refused chunk"}
    with pytest.raises(ValueError, match=words):
        raise ValueError(outcome.interventions[0].detail)
    assert outcome.interventions[0].came is not None


def test_repeated_invalid_chunks_end_the_drive_at_rest(arm: LineArm) -> None:
    outcome = drive(arm, Script(lambda n, x: [nan if n >= 4 else 1.0] * 20), 3.0, refused_chunks=3)
    # Asked in period 3, refused in 4, and again in 5 and 6, with which it ends.
    assert outcome.ended == "refused chunk: action 'dx', step 0, is nan, 3 in a row"
    assert arm.actions == [1.0] * 4 + [0.0] * 2
    assert arm.stops_s == [pytest.approx(START_S + 6 * DT_S)]


def test_gripper_actions_are_not_blended() -> None:
    """Chunks alternate between open and close; only these two values are sent, also at a pace below 1."""
    arm = LineArm(SimulatedClock())
    gripper = replace(arm.spec.world.action, names=("gripper",), grippers=(0,))
    arm.spec = replace(arm.spec, world=replace(arm.spec.world, action=gripper), axes=(Axis(relative=False),))
    policy = Script(lambda n, x: [1.0 if n % 2 else -1.0] * 8)
    drive(arm, policy, 3.0, lambda n: 0.15, blend_decay=0.3, correction=0.5, max_moves_ahead=2.5)
    assert set(arm.actions) == {-1.0, 1.0}


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ({"state": np.array([nan], np.float32)}, "the state is not finite in x"),
        ({"state": np.zeros(3, np.float32)}, "the state has shape (3,), expected (1,)"),
        ({"state": np.array(["far"])}, "the state is of <U3, expected float32"),
        ({"state": np.array([1e300])}, "the state is not finite in x"),
        ({"state": [[1.0], [1.0, 2.0]]}, "the state is a list, expected float32 (1,)"),
        ({"frames": None}, "its frames are a NoneType, expected them by camera"),
        ({"frames": {}}, "camera 'front' is missing; cameras: "),
        (
            {"frames": {"front": np.zeros((4, 6), np.uint8)}},
            "camera 'front' gives uint8 (4, 6), expected uint8 (4, 6, 3)",
        ),
        (
            {"frames": {"front": np.zeros((4, 6, 3), np.uint16)}},
            "camera 'front' gives uint16 (4, 6, 3), expected uint8 (4, 6, 3)",
        ),
        ({"frames": {"front": [[1]]}}, "camera 'front' gives a list, expected uint8 (4, 6, 3)"),
        ({"localization": np.zeros(2, np.float32)}, "the localization has shape (2,), expected (0,)"),
        ({"time_s": nan}, "its time is nan"),
        ({"time_s": None}, "its time is None"),
        ({"time_s": 1.7e9}, "its time is 1.7e+09 s ahead of the clock that drives the robot"),
    ],
)
def test_the_arm_holds_on_every_invalid_reading_and_the_reason_is_logged(
    arm: LineArm, broken: dict[str, Any], words: str
) -> None:
    sound = replace(arm.observe(), time_s=FRESH_S)
    arm.clock.at(START_S + 0.45, lambda: setattr(arm, "frozen", replace(sound, **broken)))
    arm.clock.at(START_S + 0.75, arm.thaw)
    outcome = drive(arm, always(1.0), 1.2)
    assert arm.actions == [1.0] * 5 + [0.0] * 4 + [1.0] * 3
    assert [i.detail for i in outcome.interventions if i.reason == "broken observation"] == [words] * 3


@pytest.mark.parametrize(
    "said", [np.zeros(2, np.float32), np.array(["up"]), [[0.0], [0.0, 1.0]], np.array([1e300]), None]
)
def test_an_operators_invalid_action_moves_nothing(arm: LineArm, said: Any) -> None:
    operator: Any = SimpleNamespace(action=lambda reading, rest: [said] if said is None else said)
    outcome = agent_for(arm, always(1.0), operator=operator).run("go", 0.5)
    assert arm.actions == [0.0] * 5
    assert outcome.interventions_by_reason() == {"refused action": 5}


def test_a_robot_that_reuses_its_arrays_changes_no_observation_or_action() -> None:
    class Thrifty(LineArm):
        frame, state, sent_last = np.zeros((4, 6, 3), np.uint8), np.zeros(1, np.float32), np.zeros(1, np.float32)

        def observe(self) -> Reading:
            shown = super().observe()
            self.frame[:], self.state[:] = len(self.sent), shown.state
            return replace(shown, frames={"front": self.frame}, state=self.state)

        def act(self, action: NDArray[np.float32]) -> NDArray[np.float32]:
            self.sent_last[:] = super().act(action)
            return self.sent_last

    seen: list[tuple[Any, Any]] = []

    class Keeps(Script):
        def act(self, worlds: Sequence[int], observation: Observation) -> ActionChunk:
            seen.append((observation["frames"]["front"], observation["state"]))
            return super().act(worlds, observation)

    policy = Keeps(lambda n, x: [0.0 if n < 2 else 1.0] * 4)
    outcome = drive(Thrifty(SimulatedClock(), Limits(max_change=0.25)), policy, 0.5)
    assert [frame.max() for frame, _ in seen] == [0, 0, 1, 2, 3, 4]
    assert [float(state[0, 0]) for _, state in seen] == pytest.approx([0.0, 0.0, 0.0, 0.0, 0.25, 0.75])
    assert [float(i.sent[0]) for i in outcome.interventions if i.sent is not None] == pytest.approx([0.25, 0.5, 0.75])


def test_an_invalid_first_chunk_moves_nothing(arm: LineArm) -> None:
    outcome = drive(arm, always(nan), 1.0)
    assert outcome.ended == "refused chunk: action 'dx', step 0, is nan"
    assert arm.actions == []


def test_a_frozen_camera_holds_the_arm_within_two_periods_and_clears_old_chunks(arm: LineArm) -> None:
    arm.clock.at(START_S + 0.95, arm.freeze)
    arm.clock.at(START_S + 1.95, arm.thaw)
    policy = Script(lambda n, x: [0.5 if n < 11 else 0.25] * 50)
    outcome = drive(arm, policy, 3.0)
    # Last seen at 0.95; the observation of period 10 is 50 ms old, that of 11 is 150 ms old.
    assert arm.actions[:11] == [0.5] * 11
    assert arm.actions[11:20] == [0.0] * 9
    assert arm.x(START_S + 0.95 + 2 * DT_S) == pytest.approx(arm.x(START_S + 1.95)) == pytest.approx(5.5)
    stale = [i.period for i in outcome.interventions if i.reason == "stale observation"]
    assert stale == list(range(11, 20))
    # The camera is back in period 20, which requests a chunk; nothing moves before it is received.
    assert arm.actions[20:22] == [0.0, 0.25]


def test_a_robot_without_new_readings_becomes_stale(arm: LineArm, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing() -> Reading:
        raise TimeoutError("no frame")

    arm.clock.at(START_S + 0.95, lambda: monkeypatch.setattr(arm, "observe", nothing))
    outcome = drive(arm, always(1.0), 2.0)
    # Last seen in period 9; the observation of period 10 is 100 ms old, that of 11 200 ms.
    assert arm.x(99.0) == pytest.approx(11.0)
    assert outcome.ended == "time limit"


def test_a_disconnect_in_the_middle_of_a_chunk_ends_the_drive(arm: LineArm) -> None:
    arm.clock.at(START_S + 0.75, arm.break_cable)
    outcome = drive(arm, always(1.0), 2.0)
    assert outcome.ended == "robot failed: ConnectionError('the cable is out')"
    assert [i.reason for i in outcome.interventions] == ["robot failed", "robot failed"], "the stop failed too"
    assert arm.x(99.0) == pytest.approx(8.0), "what was sent last ends with its period"
    assert not arm.connected


@pytest.mark.parametrize("moment_s", [-0.05, 0.0, 0.3, 0.55, 0.99])
def test_a_stop_takes_effect_within_a_period_with_its_reason_and_success_flag(arm: LineArm, moment_s: float) -> None:
    agent = agent_for(arm, always(1.0))
    arm.clock.at(START_S + moment_s, lambda: agent.stop("the page", success=True))
    outcome = agent.run("go", 2.0)
    assert outcome.ended == "stopped: the page"
    assert outcome.success is True
    assert arm.x(99.0) == pytest.approx(max(0.0, moment_s) / DT_S), "at once, for the loop was waiting"
    assert arm.stops_s == [pytest.approx(START_S + moment_s)]


def test_limits_change_only_actions_beyond_them_and_log_every_change() -> None:
    arm = LineArm(SimulatedClock(), Limits(high=2.5, max_velocity=5.0))
    outcome = drive(arm, always(1.0), 1.0)
    assert arm.actions == [0.5] * 5 + [0.0] * 5
    first, last = outcome.interventions[0], outcome.interventions[-1]
    assert (first.period, first.reason, first.detail) == (0, "velocity", "dx")
    assert (last.period, last.reason, last.detail) == (9, "position", "dx")
    assert last.came is not None and last.sent is not None
    assert (last.came.tolist(), last.sent.tolist()) == ([1.0], [pytest.approx(0.0, abs=1e-6)])
    assert outcome.interventions_by_reason() == {"velocity": 10, "position": 5}


@pytest.mark.parametrize("by_hand", [False, True])
def test_the_arm_holds_when_a_watched_state_leaves_its_bounds_whoever_drives(by_hand: bool) -> None:
    pushing: Any = SimpleNamespace(action=lambda reading, rest: np.ones(1, np.float32) if by_hand else None)
    arm = LineArm(SimulatedClock())
    arm.spec = replace(arm.spec, watched=(Watch(state="x", high=2.5),))
    outcome = agent_for(arm, always(1.0), operator=pushing).run("go", 1.0)
    assert arm.actions == [1.0] * 3 + [0.0] * 7
    assert outcome.interventions_by_reason() == {"watched state": 7}
    assert outcome.interventions[0].detail == "x is 3, allowed -inf to 2.5"


@pytest.mark.parametrize("who", ["robot", "watcher", "operator"])
def test_any_exception_leaves_the_arm_at_rest_and_disconnected(
    who: str, arm: LineArm, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> Never:
        raise RuntimeError("a bug")

    taking_part: dict[str, Any] = {"operator": SimpleNamespace(action=fails), "watcher": fails}
    if who == "robot":
        monkeypatch.setattr(arm, "act", fails)
    agent = agent_for(arm, always(1.0), **{name: part for name, part in taking_part.items() if name == who})
    with pytest.raises(RuntimeError, match="a bug"):
        agent.run("go", 1.0)
    assert len(arm.stops_s) == 1
    assert not arm.connected


def test_readings_are_checked_before_the_robot_moves(arm: LineArm) -> None:
    small = replace(arm.spec.world.cameras[0], height=3)
    arm.spec = replace(arm.spec, world=replace(arm.spec.world, cameras=(small,)))
    with pytest.raises(ValueError, match=r"camera 'front' gives uint8 \(4, 6, 3\), expected uint8 \(3, 6, 3\)"):
        drive(arm, always(1.0), 1.0)
    assert arm.actions == []
    assert not arm.connected


def test_a_state_that_is_not_finite_is_refused_before_anything_moves(arm: LineArm) -> None:
    sound = arm.observe
    bad = replace(sound(), state=np.array([nan], np.float32), time_s=FRESH_S)
    arm.clock.at(START_S + 0.45, lambda: setattr(arm, "frozen", bad))
    outcome = drive(arm, always(1.0), 1.0)
    assert arm.actions == [1.0] * 5 + [0.0] * 5
    assert {(i.reason, i.detail) for i in outcome.interventions} == {
        ("broken observation", "the state is not finite in x")
    }


@pytest.mark.parametrize("bad", [np.array([nan], np.float32), np.zeros(2, np.float32)])
def test_an_invalid_state_before_the_first_action_keeps_an_arm_with_targets_in_place(
    bad: NDArray[np.float32],
) -> None:
    """Actions are targets on an axis of 10 units; the first period's reading is invalid."""
    arm = LineArm(SimulatedClock())
    arm.spec = replace(arm.spec, axes=(Axis(state="x", relative=False, scale=10.0),))
    sound = replace(arm.observe(), state=np.array([4.0], np.float32), time_s=FRESH_S)
    arm.frozen = sound
    arm.clock.at(START_S - 0.05, lambda: setattr(arm, "frozen", replace(sound, state=bad)))
    arm.clock.at(START_S + 0.25, lambda: setattr(arm, "frozen", sound))
    outcome = drive(arm, always(0.5), 0.6)
    assert arm.actions == [0.4, 0.4, 0.4, 0.4, 0.5, 0.5], "the chunk is received a period after the next valid reading"
    assert outcome.interventions_by_reason() == {"broken observation": 3, "late chunk": 1}


def test_a_chunk_of_an_observation_before_an_invalid_reading_is_dropped(arm: LineArm) -> None:
    """The latency is 2 periods: the chunk of period 2 comes in period 4, and period 3 has no valid reading."""
    sound = arm.observe
    arm.clock.at(
        START_S + 0.25, lambda: setattr(arm, "frozen", replace(sound(), state=np.full(1, nan), time_s=FRESH_S))
    )
    arm.clock.at(START_S + 0.35, arm.thaw)
    outcome = drive(arm, always(1.0, length=4), 0.8, lambda n: 2 * DT_S if n else 0.0)
    assert arm.actions == [1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0]
    assert outcome.interventions_by_reason() == {"broken observation": 1, "late chunk": 2}


def test_a_failing_disconnect_keeps_the_drives_outcome(arm: LineArm, monkeypatch: pytest.MonkeyPatch) -> None:
    def unplugged() -> None:
        raise ConnectionError("no such port")

    monkeypatch.setattr(arm, "disconnect", unplugged)
    agent = agent_for(arm, always(1.0))
    assert [agent.run("go", 0.5).num_steps for _ in range(2)] == [5, 5], "and it can be driven again"
    outcome = agent.run("go", 0.5)
    (failed,) = outcome.interventions
    assert (failed.reason, failed.detail) == ("robot failed", "disconnect: ConnectionError('no such port')")


def test_an_operators_action_that_is_not_finite_moves_nothing(arm: LineArm) -> None:
    def shaking(reading: Reading, rest: NDArray[np.float32]) -> NDArray[np.float32]:
        del rest
        return np.array([nan if 0.15 < reading.time_s - START_S < 0.35 else 0.5], np.float32)

    operator: Any = SimpleNamespace(action=shaking)
    outcome = agent_for(arm, always(1.0), operator=operator).run("go", 0.6)
    assert arm.actions == [0.5, 0.5, 0.0, 0.0, 0.5, 0.5]
    assert outcome.interventions_by_reason() == {"refused action": 2}


def test_a_failure_before_the_first_period_is_timed_from_the_drives_beginning(arm: LineArm) -> None:
    arm.clock.jump(500.0)
    outcome = drive(arm, always(nan), 1.0)
    assert outcome.interventions[0].time_s == pytest.approx(DT_S)


def test_an_overlong_period_skips_periods_and_keeps_the_schedule(arm: LineArm) -> None:
    """Sending takes 0.25 s in period 3, so periods 4 and 5 are missed and period 6 begins at its own time."""
    act = arm.act

    def slow(action: NDArray[np.float32]) -> NDArray[np.float32]:
        sent = act(action)
        if len(arm.sent) == 4:
            arm.clock.jump(arm.clock.now_s() + 0.25)
        return sent

    arm.act = slow
    outcome = drive(arm, always(1.0), 1.0)
    assert (outcome.num_steps, outcome.missed_periods) == (8, 2)
    assert [s for s, _ in arm.sent][:5] == pytest.approx([START_S + p * DT_S for p in (0, 1, 2, 3, 6)])


@pytest.mark.parametrize(("slow", "from_period_3"), [("act", [0.8, 0.2, 0.4]), ("observe", [0.2, 0.4, 0.6])])
def test_after_a_pause_the_arm_accelerates_from_rest(slow: str, from_period_3: list[float]) -> None:
    """20 units/s2 are 0.2 more in each period of 0.1 s. In period 3 a call takes 0.13 s, so period 4 is missed: either
    the arm rests after the move of period 3, or before it, which is then sent late and lasts into period 5.
    """
    arm = LineArm(SimulatedClock(), Limits(max_acceleration=20.0))
    call, count = getattr(arm, slow), itertools.count()

    def slow_once(*args: NDArray[np.float32]) -> object:
        done = call(*args)
        if next(count) == (3 if slow == "act" else 5):  # two observations come before the first period
            arm.clock.jump(arm.clock.now_s() + 0.13)
        return done

    setattr(arm, slow, slow_once)
    outcome = drive(arm, always(1.0, length=20), 0.7)
    assert outcome.missed_periods == 1
    assert arm.actions == [0.2, 0.4, 0.6, *from_period_3]


def test_without_a_first_chunk_the_drive_ends_before_its_first_period(arm: LineArm) -> None:
    outcome = drive(arm, always(1.0), 1.0, lambda n: 1e9, first_answer_within_s=2.0)
    assert (outcome.ended, arm.actions) == ("no answer within 2 s", [])


def test_a_slow_first_inference_is_repeated_before_anything_moves(arm: LineArm) -> None:
    """The scene may have changed while a model was being loaded."""
    policy = Script(lambda n, x: [1.0 if n == 0 else 0.5] * 8)
    drive(arm, policy, 1.0, lambda n: 30.0 if n == 0 else 0.0)
    assert arm.actions == [0.5] * 10
    assert arm.sent[0][0] == pytest.approx(30.0 + DT_S)


def test_the_policy_gets_the_instruction_once_before_any_observation(arm: LineArm) -> None:
    policy = always(0.5)
    drive(arm, policy, 1.0)
    assert policy.instructions == ["go"]
