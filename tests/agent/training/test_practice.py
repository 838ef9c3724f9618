"""The initial states of an iteration."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from agent.runs.checks import check_config
from agent.training.practice import MOST_FOCUS, PracticeConfig, check_practice, practice_specs

CONFIG = PracticeConfig(episodes_per_task=8)


def test_no_two_rounds_share_an_initial_state_and_tasks_are_interleaved() -> None:
    found = [
        spec
        for iteration in range(4)
        for round_ in range(3)
        for spec in practice_specs(CONFIG, "s", ("a", "b"), iteration, round_, repeats=2)
    ]
    assert len(found) == 4 * 3 * 4 * 2 == len(set(found))
    assert [spec.task for spec in found[:4]] == ["a", "b", "a", "b"]
    assert practice_specs(CONFIG, "s", ("a",), 2) == practice_specs(CONFIG, "s", ("a",), 2)


def test_a_run_with_too_few_practice_seeds_is_refused_before_it_starts() -> None:
    """16 rounds of 8 seeds from 100,000 on reach 1,000,000 in iteration 7,031.25."""
    check_practice(CONFIG, 7031, rounds=1, repeats=1)
    check_practice(CONFIG, 7032, rounds=1, repeats=1)
    for iterations, rounds, repeats in ((7033, 1, 1), (7032, 5, 1), (3, 1, 3)):
        with pytest.raises(ValueError, match="cannot be practised"):
            check_practice(CONFIG, iterations, rounds=rounds, repeats=repeats)


def test_evaluation_seeds_and_incomplete_groups_are_refused() -> None:
    with pytest.raises(ValueError, match="are for evaluation"):
        practice_specs(CONFIG, "s", ("a",), iteration=10**6)
    with pytest.raises(ValueError, match="multiple of 3"):
        practice_specs(CONFIG, "s", ("a",), 0, repeats=3)


def counts(focus: float, success: dict[str, float], iteration: int = 0) -> Counter[str]:
    specs = practice_specs(replace(CONFIG, focus=focus), "s", tuple(success), iteration, success=success)
    return Counter(spec.task for spec in specs)


def test_focus_distributes_its_share_of_the_episodes_by_failure_rates() -> None:
    """Failures 0, 1/2 and 1, mean 1/2: half of 8 each, and of the other half nothing, once and twice as much."""
    success = {"a": 1.0, "b": 0.5, "c": 0.0}
    assert counts(0.5, success) == {"a": 4, "b": 8, "c": 12}
    assert counts(1.0, success) == {"b": 8, "c": 16}
    assert counts(0.0, success) == {"a": 8, "b": 8, "c": 8}


def test_without_failures_or_an_evaluation_tasks_get_equal_shares() -> None:
    assert counts(1.0, {"a": 1.0, "b": 1.0}) == {"a": 8, "b": 8}
    assert len(practice_specs(replace(CONFIG, focus=1.0), "s", ("a", "b"), 0)) == 16


def test_one_failing_task_gets_at_most_its_cap_and_no_other_iterations_initial_states() -> None:
    success = {f"easy{i}": 1.0 for i in range(19)} | {"hard": 0.0}
    assert counts(0.9, success)["hard"] == MOST_FOCUS * 8
    focused = replace(CONFIG, focus=0.9)
    specs = [spec for i in range(3) for spec in practice_specs(focused, "s", tuple(success), i, success=success)]
    assert len(specs) == len(set(specs))


def test_a_focus_out_of_range_and_demonstration_seeds_are_refused() -> None:
    for wrong in ({"focus": -0.1}, {"focus": 1.5}, {"first_seed": 0}, {"first_seed": 99_999}):
        with pytest.raises(ValueError, match=r"focus is|first-seed is .*at least 100000"):
            check_config(replace(CONFIG, **wrong))
