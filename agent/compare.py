"""Two policies on the same episodes: which were won, which were lost, and whether that could be chance.

McNemar's test (McNemar 1947) looks only at the episodes in which the two differ: if neither policy were better, each of
those would be won or lost with probability 1/2, so the number won is binomial. The p-value is the exact two-sided one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from scipy.stats import binomtest


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What became of the episodes of an evaluation from one policy to the other."""

    pc_success: tuple[float, float]
    """Of the earlier and the later policy, in percent."""
    won: tuple[str, ...]
    """Ids of episodes in which only the later policy succeeded."""
    lost: tuple[str, ...]
    """Ids of episodes in which only the earlier policy succeeded."""
    num_episodes: int
    per_task: Mapping[str, Comparison] = field(default_factory=dict)
    """The same of every task's episodes; of these no further."""

    @property
    def p_value(self) -> float:
        """Of McNemar's exact test; 1 where the two never differ."""
        differ = len(self.won) + len(self.lost)
        return float(binomtest(len(self.won), differ, 0.5).pvalue) if differ else 1.0

    def __str__(self) -> str:
        first, second = self.pc_success
        return (
            f"{first:.1f} % -> {second:.1f} % of {self.num_episodes} episodes: {len(self.won)} won, "
            f"{len(self.lost)} lost, p = {self.p_value:.2g} by McNemar's exact test"
        )


def compare(before: dict[str, Any], after: dict[str, Any]) -> Comparison:
    """From two contents of eval_info.json.

    Raises:
        ValueError: they are not of the same episodes.
    """
    first, second = ({row["id"]: row for row in info["per_episode"]} for info in (before, after))
    if first.keys() != second.keys():
        raise ValueError(f"the evaluations share {len(first.keys() & second.keys())} of {len(first | second)} episodes")
    tasks = sorted({row["task"] for row in first.values()})
    of_tasks = {task: [id_ for id_, row in first.items() if row["task"] == task] for task in tasks}
    whole = _compared(first, second, list(first))
    return replace(whole, per_task={task: _compared(first, second, ids) for task, ids in of_tasks.items()})


def _compared(first: dict[str, Any], second: dict[str, Any], ids: list[str]) -> Comparison:
    before, after = ({id_: rows[id_]["success"] for id_ in ids} for rows in (first, second))
    return Comparison(
        pc_success=(100 * sum(before.values()) / len(ids), 100 * sum(after.values()) / len(ids)),
        won=tuple(id_ for id_ in ids if after[id_] and not before[id_]),
        lost=tuple(id_ for id_ in ids if before[id_] and not after[id_]),
        num_episodes=len(ids),
    )
