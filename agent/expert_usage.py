"""Which experts a policy used, task by task.

Shape letters: E experts.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


def mean_per_task(episodes: Iterable[tuple[str, int, NDArray[np.float32]]]) -> dict[str, NDArray[np.float64]]:
    """{task: [layers, E]}, the mean over all decisions.

    Args:
        episodes: task, number of decisions and their mean usage [layers, E] of each episode.

    Example:
        >>> mean_per_task([("lift", 1, np.array([[1.0, 0.0]])), ("lift", 3, np.array([[0.0, 1.0]]))])
        {'lift': array([[0.25, 0.75]])}
    """
    total: dict[str, NDArray[np.float64]] = {}
    decisions: dict[str, int] = {}
    for task, count, usage in episodes:
        total[task] = total.get(task, np.zeros(usage.shape)) + count * usage.astype(np.float64)
        decisions[task] = decisions.get(task, 0) + count
    return {task: total[task] / decisions[task] for task in sorted(total)}
