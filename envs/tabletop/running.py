"""Running: the episode of each of N worlds, its step count and its outcome. On the host for every device.

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
    """Episode state of N worlds; a world without an episode is not running."""

    def __init__(self, num_worlds: int, max_steps: int | None = None) -> None:
        """No episode runs yet. max_steps: step limit of every episode; None uses its task's."""
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
        """Begin these episodes in these worlds."""
        for world, episode in zip(worlds, episodes, strict=True):
            self.episodes[world], self.failure[world] = episode, None
            self._task[world], self.steps[world] = _TASK_INDEX[episode.spec.task], 0
            self.terminated[world] = self.truncated[world] = self.success[world] = False

    def alive(self) -> NDArray[np.int64]:
        """Indices of the worlds whose episode is running."""
        return np.flatnonzero((self._task >= 0) & ~self.terminated & ~self.truncated)

    def tasks(self, worlds: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
        """Index in EVERY_TASK of the task of each of these worlds, -1 before its first episode, [n]."""
        return self._task[worlds]

    def max_steps(self, worlds: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
        """Step limit of the episode in each of these worlds, [n]."""
        return self._max_steps[self._task[worlds]]

    def by_task(self, worlds: NDArray[np.int64]) -> Iterator[tuple[Task, NDArray[np.int64]]]:
        """Yields each task among these worlds and its indices into `worlds`."""
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
        """End the episodes that the last step of these worlds ended; the step is already counted."""
        success, wrong = success & ~broken, wrong & ~broken & ~success
        lost = lost & ~broken & ~success & ~wrong
        self.success[worlds], self.terminated[worlds] = success, broken | success | wrong | lost
        self.truncated[worlds] = ~self.terminated[worlds] & (self.steps[worlds] >= self.max_steps(worlds))
        for world in worlds[broken].tolist():
            self.failure[world] = "non-finite physics"
        for world in worlds[wrong].tolist():
            self.failure[world] = _TASKS[self._task[world]].wrong_name
        for world in worlds[lost].tolist():
            self.failure[world] = "object off the table"
