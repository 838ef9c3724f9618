"""The plan: what is left to execute of the chunks that came so far, blended so that nothing jumps where one takes over.

A chunk c answers an observation; c_0 is meant for the moment of that observation and c_i for i moves later. Moves are
counted and not time: while an arm holds, its plan stands still too. So a chunk that comes after j moves goes on with
c_j, as if it had come at once, and the moves it is too late for are skipped.

Where chunks overlap, all of them have an opinion about the next move. The plan is their mean,

    a = sum_m w_m v_m / sum_m w_m,     w_m = decay^(age_m)     (age of an observation, in moves, from the newest one)

as in temporal ensembling (Zhao et al. 2023, ACT, section IV-C), with the newest observation weighing most.

Continuity of a displacement is continuity of velocity: positions never jump, whatever a chunk says, because each move
starts where the arm is.

Shape letters: K chunk length, A action dims.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class Plan:
    """Chunks by the number of moves before their observation."""

    def __init__(self, decay: float) -> None:
        """Begin with nothing to do.

        Args:
            decay: weight of a chunk relative to one whose observation is a move newer; 0 follows the newest alone.
        """
        self.moves = 0
        """Made so far."""
        self._decay = decay
        self._chunks: list[tuple[int, NDArray[np.float32]]] = []

    def add(self, moves: int, chunk: NDArray[np.float32]) -> None:
        """Take in a chunk [K, A] that answers the observation after that many moves."""
        self._chunks.append((moves, chunk))

    def next_action(self) -> NDArray[np.float32] | None:
        """The next move, [A]; None if no chunk reaches that far."""
        self._chunks = [(start, chunk) for start, chunk in self._chunks if self.moves - start < len(chunk)]
        if not self._chunks:
            return None
        newest = max(start for start, _ in self._chunks)
        weights = np.array([self._decay ** (newest - start) for start, _ in self._chunks])
        actions = np.stack([chunk[self.moves - start] for start, chunk in self._chunks])
        return (weights @ actions / weights.sum()).astype(np.float32)

    def moved(self) -> None:
        """The next move was made."""
        self.moves += 1

    def clear(self) -> None:
        """Forget every chunk."""
        self._chunks.clear()
