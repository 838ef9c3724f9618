"""Running: which episode each of N worlds runs, how far it is and how it ended. On the host for every device.

Shape letters: N worlds, n of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from envs.tabletop.episodes.episode import Episode
from envs.tabletop.episodes.task import Task
from envs.tabletop.tasks import EVERY_TASK

_TASKS = tuple(EVERY_TASK.values())
_TASK_INDEX = {name: i for i, name in enumerate(EVERY_TASK)}
_MAX_STEPS = np.array([task.max_steps for task in _TASKS])


class Running:
    """Books of N worlds; a world that has not begun an episode does not run."""

    def __init__(self, num_worlds: int, max_steps: int | None = None) -> None:
        """No episode runs; each will for at most max_steps, or as its task says where None."""
        self.episodes: list[Episode | None] = [None] * num_worlds
        self.terminated = np.zeros(num_worlds, bool)
        self.truncated = np.zeros(num_worlds, bool)
        self.success = np.zeros(num_worlds, bool)
        self.failure: list[str | None] = [None] * num_worlds
        self.steps = np.zeros(num_worlds, np.int64)
        """Control steps since each episode began."""
        self._task = np.full(num_worlds, -1)
        self._max_steps = _MAX_STEPS if max_steps is None else np.full_like(_MAX_STEPS, max_steps)

    def begin(self, worlds: Sequence[int], episodes: Sequence[Episode]) -> None:
        """These episodes begin in these worlds."""
        for world, episode in zip(worlds, episodes, strict=True):
            self.episodes[world], self.failure[world] = episode, None
            self._task[world], self.steps[world] = _TASK_INDEX[episode.spec.task], 0
            self.terminated[world] = self.truncated[world] = self.success[world] = False

    def alive(self) -> NDArray[np.int64]:
        """The worlds whose episode goes on."""
        return np.flatnonzero((self._task >= 0) & ~self.terminated & ~self.truncated)

    def by_task(self, worlds: NDArray[np.int64]) -> Iterator[tuple[Task, NDArray[np.int64]]]:
        """Every task that some of these worlds run, and its rows in `worlds`."""
        tasks = self._task[worlds]
        for index in sorted(set(tasks.tolist())):
            yield _TASKS[index], np.flatnonzero(tasks == index)

    def judge(
        self,
        worlds: NDArray[np.int64],
        broken: NDArray[np.bool_],  # [n]
        success: NDArray[np.bool_],  # [n]
        wrong: NDArray[np.bool_],  # [n]
        lost: NDArray[np.bool_],  # [n]
    ) -> None:
        """These worlds made one step, which is counted already; end the episodes that it ended."""
        success, wrong = success & ~broken, wrong & ~broken & ~success
        lost = lost & ~broken & ~success & ~wrong
        self.success[worlds], self.terminated[worlds] = success, broken | success | wrong | lost
        limits = self._max_steps[self._task[worlds]]
        self.truncated[worlds] = ~self.terminated[worlds] & (self.steps[worlds] >= limits)
        for world in worlds[broken].tolist():
            self.failure[world] = "non-finite physics"
        for world in worlds[wrong].tolist():
            self.failure[world] = _TASKS[self._task[world]].wrong_name
        for world in worlds[lost].tolist():
            self.failure[world] = "object off the table"
