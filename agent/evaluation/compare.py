"""Two policies on the same episodes: which outcomes changed, and whether that could be chance.

The tests and intervals are in statistics.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from agent.evaluation.statistics import difference_interval, mcnemar
from envs.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A paired comparison of an earlier and a later policy."""

    pc_success: tuple[float, float]
    """Of the earlier and the later policy, in percent."""
    won: tuple[str, ...]
    """Ids of episodes in which only the later policy succeeded."""
    lost: tuple[str, ...]
    """Ids of episodes in which only the earlier policy succeeded."""
    num_episodes: int
    per_group: Mapping[str, Comparison] = field(default_factory=dict)
    """Comparison of the episodes of each variation of a suite ("tabletop/train"), without groups of its own."""
    per_task: Mapping[str, Comparison] = field(default_factory=dict)
    """Comparison of each task's episodes, without groups of its own."""

    @property
    def p_value(self) -> float:
        """Of McNemar's exact test; 1 where the two never differ."""
        return mcnemar(len(self.won), len(self.lost))

    @property
    def difference(self) -> float:
        """Of success, later minus earlier, in points of percent."""
        return 100 * (len(self.won) - len(self.lost)) / self.num_episodes

    @property
    def difference_interval(self) -> tuple[float, float]:
        """95 % interval of the difference, in points of percent."""
        low, high = difference_interval(len(self.won), len(self.lost), self.num_episodes)
        return 100 * low, 100 * high

    def __str__(self) -> str:
        first, second = self.pc_success
        return (
            f"{first:.1f} % -> {second:.1f} % of {self.num_episodes} episodes: {len(self.won)} won, "
            f"{len(self.lost)} lost, p = {self.p_value:.2g} by McNemar's exact test"
        )


def compare(before: dict[str, Any], after: dict[str, Any]) -> Comparison:
    """Compare the contents of two eval_info.json.

    Raises:
        UserError: they are not of the same episodes.
    """
    first, second = ({row["id"]: row["success"] for row in info["per_episode"]} for info in (before, after))
    whole = compare_episodes(first, second)

    def by(key: str) -> dict[str, Comparison]:
        ids: dict[str, list[str]] = {}
        for row in before["per_episode"]:
            ids.setdefault(row.get(key, ""), []).append(row["id"])  # earlier versions wrote no group
        return {
            name: compare_episodes(*({id_: successes[id_] for id_ in ids[name]} for successes in (first, second)))
            for name in sorted(ids)
        }

    return replace(whole, per_group=by("task_group"), per_task=by("task"))


def compare_episodes(first: Mapping[str, bool], second: Mapping[str, bool]) -> Comparison:
    """Compare the successes of an earlier and a later policy, by episode id.

    Raises:
        UserError: they are not of the same episodes, or of none.
    """
    if not first:
        raise UserError("there is no episode to compare; llamarm eval evaluates some")
    if first.keys() != second.keys():
        together = len(first.keys() | second.keys())
        raise UserError(
            f"the evaluations share {len(first.keys() & second.keys())} of {together} episodes; evaluate one again "
            "with the --tasks, --variations and --episodes of the other"
        )
    return Comparison(
        pc_success=(100 * sum(first.values()) / len(first), 100 * sum(second.values()) / len(second)),
        won=tuple(id_ for id_ in first if second[id_] and not first[id_]),
        lost=tuple(id_ for id_ in first if first[id_] and not second[id_]),
        num_episodes=len(first),
    )
