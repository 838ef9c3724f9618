"""Which experts a policy used: by task, by phase of the motion, by layer.

The mutual information of expert and task, in bits, measures how far experts specialise by task:

    I(e; t) = H(sum_t p_t u_t) - sum_t p_t H(u_t)    u_t [E] the shares of the experts in task t, p_t its decisions'

0 where all tasks use the experts equally; at most log2(E / k) where each decision uses k experts equally. The same with
phases in place of tasks, within each task, is the information about the phase given the task.

Shape letters: E experts, n decisions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Shares = NDArray[np.float64]
"""[layers, E]"""


@dataclass
class UsageByPhase:
    """Accumulates expert usage over decisions, by task and phase.

    Examples:
        >>> usage = UsageByPhase()
        >>> usage.add("lift", np.array(["reach", "carry"]), np.array([[[1.0, 0.0]], [[0.0, 1.0]]]))
        >>> usage.by_task()
        {'lift': array([[0.5, 0.5]])}
    """

    totals: dict[tuple[str, str], Shares] = field(default_factory=dict)
    """{(task, phase): sum of [layers, E]}"""
    decisions: dict[tuple[str, str], int] = field(default_factory=dict)
    phases: tuple[str, ...] = ()
    """In the order of a motion."""

    def add(self, task: str, phases: NDArray[np.str_], usage: NDArray[np.float32]) -> None:
        """Add an episode.

        Args:
            phases: at each decision, [n].
            usage: of each decision, [n, layers, E].
        """
        for phase in np.unique(phases).tolist():
            of_phase = usage[phases == phase].astype(np.float64)
            key = (task, phase)
            self.totals[key] = self.totals.get(key, np.zeros(usage.shape[1:])) + of_phase.sum(0)
            self.decisions[key] = self.decisions.get(key, 0) + len(of_phase)

    @property
    def tasks(self) -> list[str]:
        return sorted({task for task, _ in self.totals})

    def by_task(self) -> dict[str, Shares]:
        """Over all phases."""
        return {task: self._mean({key for key in self.totals if key[0] == task}) for task in self.tasks}

    def by_phase(self, task: str | None = None) -> dict[str, Shares]:
        """Of one task or of all (each decision weighs the same); phases that occur."""
        keys = {phase: {k for k in self.totals if k[1] == phase and task in (None, k[0])} for phase in self.phases}
        return {phase: self._mean(of_phase) for phase, of_phase in keys.items() if of_phase}

    def task_information(self) -> NDArray[np.float64]:
        """I(expert; task) in bits, [layers]."""
        weights = {task: sum(n for (of, _), n in self.decisions.items() if of == task) for task in self.tasks}
        return information(self.by_task(), weights)

    def phase_information(self) -> NDArray[np.float64]:
        """I(expert; phase | task) in bits, [layers]: the mean over tasks, weighted by their decisions."""
        total = 0.0
        parts = []
        for task in self.tasks:
            weights = {phase: n for (of, phase), n in self.decisions.items() if of == task}
            parts.append(sum(weights.values()) * information(self.by_phase(task), weights))
            total += sum(weights.values())
        return np.sum(parts, axis=0) / total

    def _mean(self, keys: set[tuple[str, str]]) -> Shares:
        return np.sum([self.totals[k] for k in keys], axis=0) / sum(self.decisions[k] for k in keys)


def information(shares: Mapping[str, Shares], weights: Mapping[str, int]) -> NDArray[np.float64]:
    """Mutual information of expert and group in bits, [layers].

    Args:
        shares: of the experts in each group.
        weights: number of decisions of each group.
    """
    from scipy.stats import entropy

    p = np.array([weights[name] for name in shares], np.float64)
    p /= p.sum()
    stacked = np.stack(list(shares.values()))  # [groups, layers, E]
    of_mean, in_groups = (entropy(part, base=2, axis=-1) for part in (np.einsum("g,gle->le", p, stacked), stacked))
    return of_mean - np.einsum("g,gl->l", p, in_groups)
