"""Recorder: writes a drive as an episode of a dataset, period by period, however it ends.

Row p of the episode is control period p, at time p dt, also for a period that the loop missed: it repeats the last
frames and state, as does a period with a broken reading, and its action is rest. These rows, and all others in which
the robot was held, are marked (rollout/types.py's `held`).

Shape letters: A action dims.
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from agent.robot.types import Reading
from envs.types import EpisodeSpec
from rollout.dataset.write import DatasetWriter


class Recorder:
    """Adds one drive to an open dataset; a context manager, so that the drive is kept after any exception."""

    def __init__(self, writer: DatasetWriter, spec: EpisodeSpec, instruction: str, policy_version: int) -> None:
        """Create the recording's file.

        Args:
            writer: of the dataset, opened with `interventions`.

        Raises:
            OSError: nothing can be written.
        """
        self._writer = writer
        self._spool = writer.record(spec, instruction, policy_version)
        self._began_s = time.perf_counter()
        self._outcome: tuple[bool, str] | None = None
        self._last: Reading | None = None

    def begin(self, reading: Reading) -> None:
        """Store a valid reading from before the first period."""
        self._last = reading

    def add(
        self,
        period: int,
        reading: Reading | None,
        action: NDArray[np.float32],
        *,
        by_hand: bool,
        held: bool,
        rest: NDArray[np.float32],
    ) -> None:
        """Add a control period.

        Args:
            period: its number; missed periods before it become rows too.
            reading: None where it was broken.
            action: sent to the robot, [A].
            rest: the action that left the robot at rest before this period, [A].

        Raises:
            RecordingError: writing failed.
        """
        assert self._last is not None, "a drive begins with a valid reading"
        while self._spool.num_rows < period:
            self._row(None, rest, by_hand=False, held=True)
        self._row(reading, action, by_hand=by_hand, held=held)

    def ends(self, *, success: bool, ended: str) -> None:
        """Set the drive's success flag and why it ended; the last call counts."""
        self._outcome = success, ended

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, trace: TracebackType | None) -> None:
        success, ended = self._outcome or (False, repr(e))
        self._writer.finish(self._spool, success=success, ended=ended, duration_s=time.perf_counter() - self._began_s)

    def _row(self, reading: Reading | None, action: NDArray[np.float32], *, by_hand: bool, held: bool) -> None:
        again = reading is None and self._spool.num_rows > 0
        self._last = shown = reading or self._last
        assert shown is not None
        self._spool.add(
            frames=None if again else shown.frames,
            state=shown.state,
            action=action,
            localization=shown.localization,
            intervention=by_hand,
            held=held,
        )
