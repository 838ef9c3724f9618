"""The plan, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from agent.robot.plan import Plan


def next_of(plan: Plan) -> float | None:
    action = plan.next_action()
    return None if action is None else float(action[0])


def chunk(*values: float) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return np.array(values, np.float32)[:, None]


def test_overlapping_chunks_are_averaged_with_the_newest_observation_weighing_most() -> None:
    plan = Plan(decay=0.5)
    plan.add(0, chunk(0.0, 0.1, 0.2, 0.3))
    plan.moved()
    plan.moved()
    plan.add(2, chunk(0.5, 0.6))
    # The older one is two moves older: weight 0.25 against 1.
    assert next_of(plan) == pytest.approx((0.25 * 0.2 + 0.5) / 1.25)
    plan.moved()
    assert next_of(plan) == pytest.approx((0.25 * 0.3 + 0.6) / 1.25)
    plan.moved()
    assert next_of(plan) is None


def test_without_decay_only_the_newest_counts() -> None:
    plan = Plan(decay=0.0)
    plan.add(0, chunk(0.0, 0.1, 0.2))
    plan.moved()
    plan.add(1, chunk(0.7))
    assert next_of(plan) == pytest.approx(0.7)
    plan.moved()
    assert next_of(plan) == pytest.approx(0.2), "the newest is used up"


def test_a_chunk_whose_moves_were_all_made_says_nothing() -> None:
    plan = Plan(decay=0.5)
    for _ in range(3):
        plan.moved()
    plan.add(0, chunk(1.0, 1.0, 1.0))
    assert next_of(plan) is None


def test_a_cleared_plan_is_empty_and_counts_on() -> None:
    plan = Plan(decay=0.5)
    plan.moved()
    plan.add(0, chunk(0.1, 0.2))
    plan.clear()
    assert next_of(plan) is None
    plan.add(0, chunk(0.1, 0.2))
    assert next_of(plan) == pytest.approx(0.2)
