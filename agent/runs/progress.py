"""The one look of every progress bar: what, how far, how long, how much longer; lines of a log where nobody watches."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from rollout.types import Trajectory

LINE_EVERY_S = 30.0


class _Progress(Progress):
    """rich draws nothing before the end where the output is no terminal; there this prints a line now and then."""

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
    """A rich Progress, to be entered; add a task per bar. It shows on standard error: standard output has results."""
    return _Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


class EpisodesBar:
    """A bar that counts episodes, and says how many of those it was shown succeeded and how fast frames come."""

    def __init__(self, progress: Progress, what: str, total: int, completed: int = 0) -> None:
        self._progress = progress
        self._what = what
        self._bar = progress.add_task(what, total=total, completed=completed)
        self._began_s = time.monotonic()
        self._shown = self._successes = self._frames = 0

    def show(self, trajectory: Trajectory, counts: bool = True) -> None:
        """An episode ended; one that does not count moves the figures, not the bar."""
        self._shown += 1
        self._successes += trajectory.success
        self._frames += len(trajectory.frame_step) * len(trajectory.frames)
        success = self._successes / self._shown
        frames_per_s = self._frames / (time.monotonic() - self._began_s)
        figures = f"{self._what}, {success:.0%} success, {frames_per_s:.0f} frames/s"
        self._progress.update(self._bar, advance=int(counts), description=figures)
