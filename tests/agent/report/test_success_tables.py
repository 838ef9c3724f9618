"""The tables that `llamarm eval` and `train` print: every number beside its task, and nothing truncated."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from agent.evaluation.evaluate import EpisodeResult, Evaluation
from agent.report.success_tables import print_success
from envs.types import EpisodeSpec

LONG = "button-press-topdown-wall-v3"
GROUPS = {"easy": (LONG,), "very [hard]": ("stack",)}
Wins = Mapping[tuple[str, str], tuple[bool, ...]]
WINS: Wins = {
    (LONG, "train"): (True, True, True, True),
    (LONG, "everything_held_out"): (True, True, False, False),
    ("stack", "train"): (True, False, False, False),
    ("stack", "everything_held_out"): (False, False, False, False),
}


def evaluation(wins: Wins) -> Evaluation:
    results = tuple(
        EpisodeResult(
            spec=EpisodeSpec(suite="toy", task=task, seed=seed, variation=variation),
            instruction="do it",
            success=won,
            failure=None if won else "step limit",
            num_steps=1,
            num_decisions=1,
            sum_reward=0.0,
            max_reward=0.0,
            policy_version=0,
        )
        for (task, variation), outcomes in wins.items()
        for seed, won in enumerate(outcomes)
    )
    return Evaluation(
        results=results,
        n_action_steps=1,
        expert_usage={},
        task_groups=GROUPS,
        eval_s=1.0,
        steps_per_s=1.0,
        frames_per_s=1.0,
    )


@pytest.mark.parametrize("columns", ["30", "80", "200"])
def test_tables_are_not_truncated_in_a_narrow_terminal(
    columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    blind = evaluation({key: won for key, won in WINS.items() if key[1] == "train"} | {(LONG, "train"): (False,) * 4})
    print_success(evaluation(WINS), {"shuffled instructions": blind})
    text = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if "│" in line]
    assert rows == [
        [LONG, "75.0 %", "40.9 to 92.9 %", "8", "0.0 %"],
        ["stack", "12.5 %", "2.2 to 47.1 %", "8", "25.0 %"],
        ["all", "43.8 %", "23.1 to 66.8 %", "16", "12.5 %"],
        [LONG, "50.0 %", "100.0 %"],
        ["stack", "0.0 %", "25.0 %"],
        ["all", "25.0 %", "62.5 %"],
        ["95 % interval", "7.1 to 59.1 %", "30.6 to 86.3 %"],
        ["easy", "75.0 %", "40.9 to 92.9 %", "0.0 %"],
        ["very [hard]", "12.5 %", "2.2 to 47.1 %", "25.0 %"],
        ["mean over groups", "43.8 %", "26.0 to 63.2 %", "12.5 %"],
        ["mean over tasks", "43.8 %", "26.0 to 63.2 %", "12.5 %"],
    ]
    head = {cell.strip() for line in text.splitlines() if "┃" in line for cell in line.split("┃")}
    assert {"success", "episodes", "instructions", "everything_held_out"} <= {w for cell in head for w in cell.split()}
    assert "…" not in text
    assert text.endswith("failed: step limit, 9 episodes\n")
