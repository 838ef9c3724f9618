"""Which episodes an iteration practises on."""

from __future__ import annotations

import pytest

from agent.practice import PracticeConfig, practice_specs

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


def test_evaluations_seeds_and_broken_groups_are_refused() -> None:
    with pytest.raises(ValueError, match="evaluation's"):
        practice_specs(CONFIG, "s", ("a",), iteration=10**6)
    with pytest.raises(ValueError, match="multiple of 3"):
        practice_specs(CONFIG, "s", ("a",), 0, repeats=3)
