"""Progress bars of all commands: description, count, elapsed and remaining time; log lines without a terminal."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from rollout.types import Trajectory

LINE_EVERY_S = 30.0


class _Progress(Progress):
    """Without a terminal rich prints nothing before the end; this prints a line every LINE_EVERY_S."""

    _printed_s = -LINE_EVERY_S

    def update(self, *args: Any, **kwargs: Any) -> None:
        super().update(*args, **kwargs)
        self._print_line()

    def advance(self, *args: Any, **kwargs: Any) -> None:
        super().advance(*args, **kwargs)
        self._print_line()

    def _print_line(self) -> None:
        if not self.console.is_terminal and time.monotonic() - self._printed_s >= LINE_EVERY_S:
            self._printed_s = time.monotonic()
            self.console.print(self.get_renderable())


def progress_bars() -> Progress:
    """A rich Progress, a context manager; add a task per bar. It writes to standard error."""
    return _Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


class EpisodesBar:
    """A bar that counts episodes, with their success rate and the frames per second."""

    def __init__(self, progress: Progress, what: str, total: int, completed: int = 0) -> None:
        self._progress = progress
        self._what = what
        self._bar = progress.add_task(what, total=total, completed=completed)
        self._began_s = time.monotonic()
        self._shown = self._successes = self._frames = 0

    def show(self, trajectory: Trajectory, counts: bool = True) -> None:
        """Update with a finished episode; one that does not count updates the figures, not the bar."""
        self._shown += 1
        self._successes += trajectory.success
        self._frames += len(trajectory.frame_step) * len(trajectory.frames)
        success = self._successes / self._shown
        frames_per_s = self._frames / (time.monotonic() - self._began_s)
        figures = f"{self._what}, {success:.0%} success, {frames_per_s:.0f} frames/s"
        self._progress.update(self._bar, advance=int(counts), description=figures)
