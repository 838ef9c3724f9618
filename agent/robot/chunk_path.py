"""The path of the chunks that came so far, blended, and the next move along it.

A chunk c answers an observation; c_i is meant for i moves after it. When the answer comes, the arm has made u moves
since. Two things are then true of a chunk of displacements: its first u moves are in the past, and the arm did not make
them, but those of older chunks. Whoever just goes on with c_u leaves out whatever the new chunk had corrected by its
first moves. So a chunk is taken as a path from where its observation was made,

    P(u) = c_0 + ... + c_{u-1}        (linear between whole moves)

and what the arm was really sent since then, S, tells how far it is off. The next move is

    a = P(u + pace) - P(u) + correction (P(u) - S)

for displacements, and the target that the path has at its end for all other dimensions. Where chunks overlap, their
mean is executed,

    a = sum_m w_m a_m / sum_m w_m,    w_m = decay^(moves between the observation of m and the newest one)

as in temporal ensembling (Zhao et al. 2023, ACT, section IV-C), the newest observation weighing most.

A two-valued dimension, as most grippers are, has no mean: between "open" and "close" lies what no chunk wants. Of these
the newest chunk alone decides, and at a pace below 1 its target is that of the move under way.

Moves are counted and not time: while an arm holds, its path stands still too. At a pace below 1 an arm makes less than
a move in a period, so that a slow policy is not left behind.

Continuity of a displacement is continuity of velocity: positions never jump, whatever a chunk says, because each move
starts where the arm is.

Shape letters: K chunk length, A action dims.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_SAME = 1e-6
"""Sums of paces differ by less, in moves."""


@dataclass(frozen=True)
class Mark:
    """Where the path was when an observation was made."""

    moves: float
    """Made so far."""
    travelled: NDArray[np.float64]
    """Sum of what was sent so far, [A]; it has a meaning for displacements alone."""


class ChunkPath:
    """Chunks, and how far the arm has come."""

    def __init__(
        self, relative: NDArray[np.bool_], *, decay: float, correction: float, two_valued: Sequence[int] = ()
    ) -> None:
        """Begin with nothing to do.

        Args:
            relative: which action dimensions are displacements, [A].
            decay: weight of a chunk relative to one whose observation is a move newer; 0 follows the newest alone.
            correction: share of what the arm is off a path that each move makes up for.
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
        """Of an observation that is made now."""
        return self._here

    def add(self, mark: Mark, chunk: NDArray[np.float32]) -> None:
        """Take in a chunk [K, A] that answers the observation made at that mark."""
        self._chunks.append((mark, chunk.astype(np.float64)))

    def next_action(self) -> NDArray[np.float32] | None:
        """The move of the next period, [A]; None if no chunk reaches to its end."""
        end = self._here.moves + self.pace - _SAME
        self._chunks = [(mark, chunk) for mark, chunk in self._chunks if end <= mark.moves + len(chunk)]
        if not self._chunks:
            return None
        newest = max(mark.moves for mark, _ in self._chunks)
        weights = np.array([self._decay ** (newest - mark.moves) for mark, _ in self._chunks])
        moves = np.stack([self._move(mark, chunk) for mark, chunk in self._chunks])
        mean = weights @ moves / weights.sum()
        mark, chunk = max(reversed(self._chunks), key=lambda entry: entry[0].moves)  # of two alike the later one
        due = min(math.ceil(max(0.0, self._here.moves - mark.moves + self.pace - 1.0) - _SAME), len(chunk) - 1)
        mean[self._two_valued] = chunk[due, self._two_valued]
        return mean.astype(np.float32)

    def moved(self, action: NDArray[np.float32]) -> None:
        """A period is over in which the robot was sent this for its move, [A]."""
        self._here = Mark(self._here.moves + self.pace, self._here.travelled + action)

    def clear(self) -> None:
        """Forget every chunk."""
        self._chunks.clear()

    def _move(self, mark: Mark, chunk: NDArray[np.float64]) -> NDArray[np.float64]:
        """What one chunk wants of the next period, [A]."""
        begin = self._here.moves - mark.moves
        path = np.concatenate((np.zeros((1, chunk.shape[1])), chunk.cumsum(axis=0)))  # [K + 1, A], P
        off = _at(path, begin) - (self._here.travelled - mark.travelled)
        displacement = _at(path, begin + self.pace) - _at(path, begin) + self._correction * off
        return np.where(self._relative, displacement, _at(chunk, max(0.0, begin + self.pace - 1.0)))


def _at(rows: NDArray[np.float64], place: float) -> NDArray[np.float64]:
    """The row at a place between two rows, [A]."""
    lower = min(int(place + _SAME), len(rows) - 1)
    upper = min(lower + 1, len(rows) - 1)
    return rows[lower] + max(0.0, place - lower) * (rows[upper] - rows[lower])
