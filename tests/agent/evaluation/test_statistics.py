"""Intervals, averages and adjusted p-values against numbers computed by hand."""

from __future__ import annotations

import math

import pytest

from agent.evaluation.statistics import Proportion, averages, holm

HALF, ALL = Proportion(successes=5, episodes=10), Proportion(successes=10, episodes=10)
GROUPS = {"easy": ("a", "b", "c"), "hard": ("d",), "very hard": ("e",)}


def test_wilson_interval_agrees_with_the_formula_worked_by_hand() -> None:
    """For 8 of 10 and z = 1.959964: centre (8 + z^2/2) / (10 + z^2), half width z sqrt(8*2/10 + z^2/4) / (10 + z^2)."""
    z = 1.959963984540054
    centre, half = ((8 + z * z / 2) / (10 + z * z), z * math.sqrt(8 * 2 / 10 + z * z / 4) / (10 + z * z))
    assert Proportion(successes=8, episodes=10).interval == pytest.approx((centre - half, centre + half), abs=1e-12)


def test_groups_of_any_size_have_equal_weight() -> None:
    per_task = {"a": ALL, "b": ALL, "c": ALL, "d": HALF}
    means = averages(per_task, GROUPS)
    assert list(means) == ["easy", "hard", "mean over groups", "mean over tasks"], "no task of very hard was evaluated"
    assert means["mean over groups"].rate == pytest.approx(0.75)
    assert means["mean over tasks"].rate == pytest.approx(0.875)
    assert means["hard"].interval == pytest.approx(HALF.interval), "one task alone has its own interval"


def test_the_interval_of_a_mean_follows_the_square_and_add_rule() -> None:
    per_task = {"a": HALF, "b": ALL}
    mean = averages(per_task, {})["mean over tasks"]
    low, high = HALF.interval
    below_all = ALL.interval[0]
    assert (low, below_all) == pytest.approx((0.2366, 0.7225), abs=1e-4)
    assert mean.interval[0] == pytest.approx(0.75 - 0.5 * math.hypot(0.5 - low, 1 - below_all))
    assert mean.interval[1] == pytest.approx(0.75 + 0.5 * (high - 0.5)), "nothing is above a task that always succeeds"


def test_the_interval_of_equal_tasks_narrows_with_their_number_and_stays_within_bounds() -> None:
    few, many = (averages({str(i): ALL for i in range(count)}, {})["mean over tasks"] for count in (2, 50))
    assert few.interval[1] == many.interval[1] == 1.0
    assert 1 - many.interval[0] == pytest.approx((1 - few.interval[0]) / 5)


def test_p_values_are_adjusted_by_holms_method() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []
