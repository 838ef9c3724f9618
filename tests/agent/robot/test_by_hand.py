"""Takeover by an operator: their actions are sent within the limits, marked in the recording and shown."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from line_arm import LineArm, Script, always
from numpy.typing import NDArray

from agent.robot.agent import Agent
from agent.robot.drive import DriveConfig
from agent.robot.types import Limits, Reading
from agent.robot.watch import Period
from benchmarks.simulated import SimulatedClock, SimulatedInference
from rollout.dataset.read import DatasetReader

DT_S = 0.1


class Person:
    """Requests a constant displacement during an interval."""

    def __init__(self, arm: LineArm, action: float, from_s: float, to_s: float) -> None:
        self.arm, self.wanted, self.from_s, self.to_s = arm, action, from_s - 1e-6, to_s - 1e-6
        self.rests: list[float] = []

    def action(self, reading: Reading, rest: NDArray[np.float32]) -> NDArray[np.float32] | None:
        self.rests.append(float(rest[0]))
        by_hand = self.from_s <= reading.time_s < self.to_s
        return np.array([self.wanted], np.float32) if by_hand else None


def agent_with(person: Person, policy: Script, latency_s: float = 0.0, **more: Any) -> Agent:
    make_inference = partial(SimulatedInference, clock=person.arm.clock, latency_s=lambda n: latency_s)
    config = DriveConfig(blend_decay=0.5, correction=0.5, max_moves_ahead=1e9)
    return Agent(
        policy,
        person.arm,
        config=config,
        clock=person.arm.clock,
        make_inference=make_inference,
        operator=person,
        **more,
    )


def arm(limits: Limits | None = None) -> LineArm:
    return LineArm(SimulatedClock(), limits)


def test_the_operators_action_replaces_the_policys() -> None:
    # The first chunk is received a period after its request, so periods begin at 0.1 s.
    person = Person(arm(), -0.5, 1.1, 1.6)
    outcome = agent_with(person, always(0.25)).run("go", 2.0)
    assert person.arm.actions == [0.25] * 10 + [-0.5] * 5 + [0.25] * 5
    assert outcome.interventions == ()
    assert person.rests == [0.0] * 20


def test_the_operators_actions_pass_the_safety_filter() -> None:
    person = Person(arm(Limits(max_velocity=4.0)), 1.0, 0.1, 0.6)
    outcome = agent_with(person, always(0.0)).run("go", 0.5)
    assert person.arm.actions == [0.4] * 5, "4 units per second are 0.4 in a period"
    assert outcome.interventions_by_reason() == {"velocity": 5}


@pytest.mark.parametrize("latency_s", [0.0, 0.2])
def test_after_a_takeover_the_policy_continues_from_its_newest_chunk(latency_s: float) -> None:
    """The arm does not return to where the takeover began, and chunks from before its end are not used."""
    person = Person(arm(), 1.0, 0.6, 1.1)
    seen: list[Period] = []
    chunks = Script(lambda n, x: [n / 32] * 8)
    outcome = agent_with(person, chunks, latency_s, watcher=seen.append).run("go", 2.0)
    first = next(p for p in seen if not p.by_hand and p.number > 5)
    assert first.answer is not None and first.sent == pytest.approx(first.answer.chunk[0, 0])
    assert first.reading.time_s == pytest.approx(1.1)
    assert outcome.interventions == ()


def test_a_silent_policy_does_not_hold_the_operator() -> None:
    person = Person(arm(), 0.5, 0.5, 3.0)
    script = always(0.25, length=20)
    make_inference = partial(SimulatedInference, clock=person.arm.clock, latency_s=lambda n: 0.0 if n < 3 else 100.0)
    agent = Agent(script, person.arm, clock=person.arm.clock, make_inference=make_inference, operator=person)
    outcome = agent.run("go", 2.0)
    assert person.arm.actions[-10:] == [0.5] * 10
    assert outcome.interventions == ()


def test_without_a_valid_reading_the_operator_moves_nothing() -> None:
    person = Person(arm(), 0.5, 0.0, 9.0)
    agent = agent_with(person, always(0.25))
    person.arm.clock.at(1.05, person.arm.freeze)
    asked_s = 1.05
    outcome = agent.run("go", 2.0)
    assert person.arm.actions[-8:] == [0.0] * 8
    assert set(outcome.interventions_by_reason()) == {"stale observation"}
    assert len(person.rests) <= asked_s / DT_S + 1, "what is too old is shown to nobody"


def test_a_stop_overrides_the_operator() -> None:
    person = Person(arm(), 0.5, 0.0, 9.0)
    agent = agent_with(person, always(0.25))
    person.arm.clock.at(1.05, agent.stop)
    assert agent.run("go", 2.0).ended == "stopped: by hand"
    assert person.arm.stops_s[0] == pytest.approx(1.05)


def test_a_stop_before_the_drive_ends_it_before_anything_moves() -> None:
    person = Person(arm(), 0.5, 0.0, 9.0)
    agent = agent_with(person, always(0.25))
    agent.stop("too early")
    assert agent.run("go", 1.0).ended == "stopped: too early"
    assert person.arm.actions == []
    assert agent.run("go", 1.0).ended == "time limit", "it was the first drive's"


def test_the_watcher_gets_every_period_with_its_chunk() -> None:
    seen: list[Period] = []
    person = Person(arm(), -0.5, 0.3, 0.5)
    policy = Script(lambda n, x: [0.25, 0.5, 0.125])
    agent_with(person, policy, watcher=seen.append).run("go", 0.8)
    assert [p.number for p in seen] == list(range(8))
    assert [p.by_hand for p in seen] == [False, False, True, True, False, False, False, False]
    assert [float(p.sent[0]) for p in seen] == [round(a, 4) for a in person.arm.actions]
    assert [p.time_s for p in seen] == pytest.approx(np.arange(8) * DT_S)
    for period in seen:
        assert period.answer is not None and period.answer.chunk.shape == (1, 3, 1)
    # In a period by hand no move of the policy's is made; a chunk is received a period after its request.
    assert [p.moves_since for p in seen] == [1, 2, 1, 0, 1, 2, 2, 2]


def test_frames_under_takeover_are_marked_in_the_recording(tmp_path: Path) -> None:
    person = Person(arm(), -0.5, 0.6, 1.1)
    agent_with(person, always(0.25)).run("go", 1.5, record=tmp_path)
    dataset = DatasetReader(tmp_path)
    assert dataset.info["features"]["intervention"] == {"dtype": "bool", "shape": [1], "names": None}
    columns = dataset.episode(0).columns
    assert columns["intervention"].tolist() == [False] * 5 + [True] * 5 + [False] * 5
    assert columns["action"].tolist() == [0.25] * 5 + [-0.5] * 5 + [0.25] * 5
