"""Averages of success over tasks, with intervals: every task alike, or every group of tasks alike.

Benchmarks whose tasks stand in groups publish the mean over the groups, in which a task of a small group weighs more.

A mean of tasks' rates, sum_t w_t p_t, has the 95 % interval

    p - sqrt(sum_t (w_t (p_t - l_t))^2)   to   p + sqrt(sum_t (w_t (u_t - p_t))^2)

where l_t and u_t are the ends of task t's own Wilson interval: the square-and-add rule (Newcombe 1998; Zou and Donner
2008, "Construction of confidence limits about effect measures"). Like Wilson's it speaks of other episodes of the same
tasks, and it stays within 0 and 1 and around p where every episode came out alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agent.evaluation.evaluate import Proportion


@dataclass(frozen=True, kw_only=True)
class Average:
    """A weighted mean of success rates.

    Example:
        >>> per_task = {"a": Proportion(successes=8, episodes=10), "b": Proportion(successes=6, episodes=10)}
        >>> round(averages(per_task, {})["mean over tasks"].rate, 3)
        0.7
    """

    rate: float
    interval: tuple[float, float]
    """95 %."""


def averages(per_task: Mapping[str, Proportion], groups: Mapping[str, Sequence[str]]) -> dict[str, Average]:
    """The mean over each group's tasks, by the group's name; "mean over groups"; "mean over tasks".

    Args:
        per_task: of all evaluated tasks.
        groups: by name, each evaluated task in one of them; those without an evaluated task don't count. Empty where
            the suite has none, and then there is no mean over them.
    """
    members = {name: [task for task in tasks if task in per_task] for name, tasks in groups.items()}
    members = {name: tasks for name, tasks in members.items() if tasks}
    weights = {name: dict.fromkeys(tasks, 1 / len(tasks)) for name, tasks in members.items()}
    if weights:
        weights["mean over groups"] = {
            task: 1 / len(members) / len(tasks) for tasks in members.values() for task in tasks
        }
    weights["mean over tasks"] = dict.fromkeys(per_task, 1 / len(per_task))
    return {name: _mean(weights_of, per_task) for name, weights_of in weights.items()}


def _mean(weights: Mapping[str, float], per_task: Mapping[str, Proportion]) -> Average:
    rate = math.fsum(weight * per_task[task].rate for task, weight in weights.items())
    below = math.hypot(*(w * (per_task[t].rate - per_task[t].interval[0]) for t, w in weights.items()))
    above = math.hypot(*(w * (per_task[t].interval[1] - per_task[t].rate) for t, w in weights.items()))
    return Average(rate=rate, interval=(rate - below, rate + above))
