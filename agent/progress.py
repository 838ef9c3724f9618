"""The one look of every progress bar: what, how far, how long, how much longer; lines of a log where nobody watches."""

from __future__ import annotations

import time
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

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
    """A rich Progress, to be entered; add a task per bar."""
    return _Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
