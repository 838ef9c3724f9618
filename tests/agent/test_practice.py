"""Which episodes an iteration practises on."""

from __future__ import annotations

import pytest

from agent.practice import PracticeConfig, check_practice, practice_specs

CONFIG = PracticeConfig(episodes_per_task=8)


def test_no_two_rounds_of_any_iterations_share_a_first_state_and_tasks_take_turns() -> None:
    found = [
        spec
        for iteration in range(4)
        for round_ in range(3)
        for spec in practice_specs(CONFIG, "s", ("a", "b"), iteration, round_, repeats=2)
    ]
    assert len(found) == 4 * 3 * 4 * 2 == len(set(found))
    assert [spec.task for spec in found[:4]] == ["a", "b", "a", "b"]
    assert practice_specs(CONFIG, "s", ("a",), 2) == practice_specs(CONFIG, "s", ("a",), 2)


def test_a_run_whose_last_iteration_has_no_seeds_left_is_refused_before_its_first() -> None:
    """16 rounds of 8 seeds from 100,000 on reach 1,000,000 in iteration 7,031.25."""
    check_practice(CONFIG, 7031, rounds=1, repeats=1)
    check_practice(CONFIG, 7032, rounds=1, repeats=1)
    for iterations, rounds, repeats in ((7033, 1, 1), (7032, 5, 1), (3, 17, 1), (3, 0, 1), (0, 1, 1), (3, 1, 3)):
        with pytest.raises(ValueError, match=r"cannot be practised|1 to 16 rounds|at least one iteration"):
            check_practice(CONFIG, iterations, rounds=rounds, repeats=repeats)


def test_evaluations_seeds_and_broken_groups_are_refused() -> None:
    with pytest.raises(ValueError, match="evaluation's"):
        practice_specs(CONFIG, "s", ("a",), iteration=10**6)
    with pytest.raises(ValueError, match="multiple of 3"):
        practice_specs(CONFIG, "s", ("a",), 0, repeats=3)
