"""Looking back: which earlier observations a decision sees, defined once for acting and for learning.

At control step t of an episode, with n = history_length and s = history_stride, they are those of the steps

    t - n s, ..., t - 2 s, t - s        oldest first; a step before the episode's first is its first

So what lies before the beginning is filled with the first observation and not masked: an arm at rest would have seen
just that, every sequence has one length, and with a stride as long as the episode a single one of them is always the
first observation, the cheapest memory of what was shown only then.

A learner has every control step. A policy sees a world only when it is asked, so it takes the newest observation that
is not newer than the step it wants: the very one where the stride is a multiple of the steps between two decisions.

Shape letters: n earlier observations, F observations that exist, V tokens of an observation.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor


def past_steps(step: ArrayLike, length: int, stride: int) -> NDArray[np.int64]:
    """The steps that a decision at `step` looks back to: [...] -> [..., n]."""
    back = stride * np.arange(length, 0, -1)
    return np.maximum(np.asarray(step, np.int64)[..., None] - back, 0)


def newest_not_after(existing: ArrayLike, wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    """Which of the existing steps, ascending [F], stand for the wanted ones, [...] -> [...]."""
    # Where all that exist are newer, the first of them is the nearest.
    return np.maximum(np.searchsorted(np.asarray(existing), wanted, side="right") - 1, 0)


@dataclass(frozen=True)
class SeenTokens:
    """What a policy keeps of the observations of one episode: their tokens, so that a frame is looked at once."""

    steps: list[int] = field(default_factory=list)
    """Of the observations that are remembered, ascending."""
    tokens: list[Tensor] = field(default_factory=list)
    """Of each of them, [V, d]."""

    def see(self, step: int, tokens: Tensor, length: int, stride: int) -> Tensor:
        """Remember the observation of this step; returns what a decision at it looks back on, [n, V, d].

        An episode that is asked about an earlier step than before, or about the same, goes on from there.
        """
        while self.steps and self.steps[-1] >= step:
            self.steps.pop()
            self.tokens.pop()
        self.steps.append(step)
        self.tokens.append(tokens)
        seen = newest_not_after(self.steps, past_steps(step, length, stride)).tolist()
        past = torch.stack([self.tokens[i] for i in seen])
        del self.steps[: seen[0]], self.tokens[: seen[0]]  # nothing looks back that far again
        return past
