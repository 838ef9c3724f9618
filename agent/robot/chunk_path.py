"""The blended path of the received chunks, and the next move along it.

Action c_i of a chunk is for i moves after its observation. When the chunk arrives, the arm has executed u moves of
older chunks since. For displacements, continuing with c_u would lose the correction in the chunk's first u moves. So a
chunk is a path from the position at its observation,

    P(u) = c_0 + ... + c_{u-1}        (linear between whole moves)

and the sum S of the actions sent since gives the deviation P(u) - S. The next move is

    a = P(u + pace) - P(u) + correction (P(u) - S)

for displacements, and the path's target at the end of the move for all other dimensions. Where chunks overlap, their
weighted mean is executed,

    a = sum_m w_m a_m / sum_m w_m,    w_m = decay^(moves between the observation of m and the newest one)

as in temporal ensembling (Zhao et al. 2023, ACT, section IV-C), but with the largest weight on the newest observation.

A two-valued dimension, as most grippers are, is not averaged: the newest chunk decides. At a pace below 1 its target is
that of the current move.

Moves are counted, not time: while the arm holds, its path stands still too. At a pace below 1 an arm makes less than
a move per period, so that a chunk lasts until a slow policy's next one.

Positions are continuous between chunks, because each displacement starts at the arm's current position.

Shape letters: K chunk size, A action dims.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_SAME = 1e-6
"""Tolerance of sums of paces, in moves."""


@dataclass(frozen=True)
class Mark:
    """The path's state at an observation."""

    moves: float
    """Executed so far."""
    travelled: NDArray[np.float64]
    """Sum of the actions sent so far, [A]; meaningful for displacements only."""


class ChunkPath:
    """Chunks, and the arm's progress along them."""

    def __init__(
        self, relative: NDArray[np.bool_], *, decay: float, correction: float, two_valued: Sequence[int] = ()
    ) -> None:
        """Start without chunks.

        Args:
            relative: which action dimensions are displacements, [A].
            decay: weight of a chunk relative to one whose observation is a move newer; 0 uses only the newest.
            correction: share of the deviation from a path that each move corrects.
            two_valued: dimensions that are never blended.
        """
        self.pace = 1.0
        """Moves per period, at most 1."""
        self._relative = relative
        self._decay = decay
        self._correction = correction
        self._two_valued = list(two_valued)
        self._here = Mark(0.0, np.zeros(len(relative)))
        self._chunks: list[tuple[Mark, NDArray[np.float64]]] = []

    def mark(self) -> Mark:
        """The mark of an observation that is made now."""
        return self._here

    def add(self, mark: Mark, chunk: NDArray[np.float32]) -> None:
        """Add a chunk [K, A] for the observation at that mark."""
        self._chunks.append((mark, chunk.astype(np.float64)))

    def next_action(self) -> NDArray[np.float32] | None:
        """The next period's action, [A]; None if no chunk covers it."""
        end = self._here.moves + self.pace - _SAME
        self._chunks = [(mark, chunk) for mark, chunk in self._chunks if end <= mark.moves + len(chunk)]
        if not self._chunks:
            return None
        newest = max(mark.moves for mark, _ in self._chunks)
        weights = np.array([self._decay ** (newest - mark.moves) for mark, _ in self._chunks])
        moves = np.stack([self._move(mark, chunk) for mark, chunk in self._chunks])
        mean = weights @ moves / weights.sum()
        mark, chunk = max(reversed(self._chunks), key=lambda entry: entry[0].moves)  # the later one of equals
        due = min(math.ceil(max(0.0, self._here.moves - mark.moves + self.pace - 1.0) - _SAME), len(chunk) - 1)
        mean[self._two_valued] = chunk[due, self._two_valued]
        return mean.astype(np.float32)

    def moved(self, action: NDArray[np.float32]) -> None:
        """Advance by a period in which this action was sent, [A]."""
        self._here = Mark(self._here.moves + self.pace, self._here.travelled + action)

    def clear(self) -> None:
        """Drop all chunks."""
        self._chunks.clear()

    def _move(self, mark: Mark, chunk: NDArray[np.float64]) -> NDArray[np.float64]:
        """One chunk's action for the next period, [A]."""
        begin = self._here.moves - mark.moves
        path = np.concatenate((np.zeros((1, chunk.shape[1])), chunk.cumsum(axis=0)))  # [K + 1, A], P
        off = _at(path, begin) - (self._here.travelled - mark.travelled)
        displacement = _at(path, begin + self.pace) - _at(path, begin) + self._correction * off
        return np.where(self._relative, displacement, _at(chunk, max(0.0, begin + self.pace - 1.0)))


def _at(rows: NDArray[np.float64], place: float) -> NDArray[np.float64]:
    """Linear interpolation between rows, [A]."""
    lower = min(int(place + _SAME), len(rows) - 1)
    upper = min(lower + 1, len(rows) - 1)
    return rows[lower] + max(0.0, place - lower) * (rows[upper] - rows[lower])
