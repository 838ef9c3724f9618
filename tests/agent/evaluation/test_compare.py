"""Comparison of two evaluations of the same episodes against hand-computed numbers."""

from __future__ import annotations

from typing import Any

import pytest

from agent.evaluation.compare import compare, compare_episodes


def info(**successes: bool) -> dict[str, Any]:
    """Of episodes a to d of the task "lift" and others of the task "stack"; a and e of the group "seen"."""
    rows = [
        {
            "id": id_,
            "task_group": "seen" if id_ in "ae" else "unseen",
            "task": "lift" if id_ in "abcd" else "stack",
            "success": success,
        }
        for id_, success in successes.items()
    ]
    return {"per_episode": rows}


def test_won_and_lost_episodes_are_listed_with_a_p_value() -> None:
    first = info(a=False, b=False, c=False, d=False, e=False, f=True, g=True, h=False)
    second = info(a=True, b=True, c=True, d=True, e=True, f=False, g=True, h=False)
    found = compare(first, second)
    assert found.won == ("a", "b", "c", "d", "e")
    assert found.lost == ("f",)
    # 5 or more of 6 coins, or 1 or fewer: 2 * (6 + 1) / 64
    assert found.p_value == pytest.approx(14 / 64)
    lift, stack = found.per_task["lift"], found.per_task["stack"]
    assert (lift.pc_success, lift.won, lift.lost) == ((0.0, 100.0), ("a", "b", "c", "d"), ())
    assert (stack.pc_success, stack.won, stack.lost) == ((50.0, 50.0), ("e",), ("f",))
    assert found.per_group["seen"].won == ("a", "e")
    assert (found.per_group["unseen"].won, found.per_group["unseen"].lost) == (("b", "c", "d"), ("f",))
    assert str(found).startswith("25.0 % -> 75.0 % of 8 episodes: 5 won, 1 lost, p = 0.22")


def test_equal_outcomes_have_a_p_value_of_1() -> None:
    assert compare(info(a=True, b=False), info(a=True, b=False)).p_value == 1.0


def test_evaluations_of_different_episodes_are_not_compared() -> None:
    with pytest.raises(ValueError, match="share 1 of 3 episodes"):
        compare(info(a=True, b=True), info(a=True, c=True))


def test_the_interval_of_a_difference_is_bonetts_and_prices() -> None:
    before = {str(i): i < 60 for i in range(100)}
    after = {str(i): 10 <= i < 65 for i in range(100)}
    found = compare_episodes(before, after)
    assert (len(found.won), len(found.lost), found.difference) == (5, 10, -5.0)
    # p = 6 / 102, q = 11 / 102: -0.04902 +- 1.96 sqrt((0.16667 - 0.00240) / 102)
    assert found.difference_interval == pytest.approx((-12.77, 2.96), abs=0.01)
