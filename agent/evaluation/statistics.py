"""Success rates with their uncertainty, differences between two policies, and averages over tasks.

Intervals are 95 %. They describe other episodes of the same tasks and weights, not other training seeds. z = 1.959964.

A rate p of n episodes has Wilson's score interval (Wilson 1927), computed by scipy.

A mean of tasks' rates, sum_t w_t p_t, has the interval

    p - sqrt(sum_t (w_t (p_t - l_t))^2)   to   p + sqrt(sum_t (w_t (u_t - p_t))^2)

where l_t and u_t are the bounds of task t's own Wilson interval: the square-and-add rule (Newcombe 1998; Zou and Donner
2008, "Construction of confidence limits about effect measures"). It stays within 0 and 1, and is not empty where all
episodes succeed or all fail. Benchmarks with groups of tasks publish the mean over the groups, in which a task of a
small group weighs more.

Two policies on the same n episodes differ in w episodes that only the later one won and l that it lost. If they were
equally good, each of those would be won with probability 1/2, so w is binomial: the p-value is that of McNemar's exact
two-sided test (McNemar 1947). The difference of the two rates has the adjusted Wald interval of Bonett and Price (2012,
"Adjusted Wald Confidence Interval for a Difference of Binomial Proportions Based on Paired Data"): with
p = (w + 1) / (n + 2) and q = (l + 1) / (n + 2),

    p - q +- z sqrt((p + q - (p - q)^2) / (n + 2))

Several tests at once are adjusted by Holm's step-down method (Holm 1979): the p-values of m tests in ascending order
become the running maximum of (m - i) p_i, i = 0, 1, ..., at most 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

_Z = 1.959964


@dataclass(frozen=True, kw_only=True)
class Proportion:
    """Successes of a number of episodes.

    Examples:
        >>> Proportion(successes=8, episodes=10).interval
        (0.4901624715366449, 0.9433178485456247)
    """

    successes: int
    episodes: int

    @classmethod
    def of(cls, successes: Iterable[bool]) -> Self:
        """From the success flag of each episode."""
        each = list(successes)
        return cls(successes=sum(each), episodes=len(each))

    @property
    def rate(self) -> float:
        return self.successes / self.episodes

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Wilson score interval."""
        from scipy.stats import binomtest

        low, high = binomtest(self.successes, self.episodes).proportion_ci(0.95, method="wilson")
        return float(low), float(high)


@dataclass(frozen=True, kw_only=True)
class Average:
    """A weighted mean of success rates.

    Examples:
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
        groups: by name, each evaluated task in one of them; those without an evaluated task are ignored. Empty if the
            suite has none, and then there is no mean over them.
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


def mcnemar(won: int, lost: int) -> float:
    """The p-value of McNemar's exact test; 1 where two policies never differ."""
    from scipy.stats import binomtest

    return float(binomtest(won, won + lost, 0.5).pvalue) if won + lost else 1.0


def difference_interval(won: int, lost: int, num_episodes: int) -> tuple[float, float]:
    """95 % interval of the difference of two paired rates, within -1 and 1."""
    n = num_episodes + 2
    p, q = (won + 1) / n, (lost + 1) / n
    half = _Z * math.sqrt((p + q - (p - q) ** 2) / n)
    return max(p - q - half, -1.0), min(p - q + half, 1.0)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values of several tests at once, adjusted by Holm's method.

    Examples:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
