"""Observation history: which past observations are in the input, defined once for acting and for training.

At control step t of an episode, with n = history_length and s = history_stride, they are those of the steps

    t - n s, ..., t - 2 s, t - s        oldest first; steps before the episode are clipped to its first

History before the episode is padded with the first observation and not masked: an arm at rest would have observed just
that, every sequence has the same length, and with a stride as long as the episode a history of one is always the first
observation, the cheapest memory of what was shown only then.

In training every control step is available. A policy observes a world only when it is called, so it takes the newest
observation that is not newer than the step: exactly that step if the stride is a multiple of the steps between calls.

Shape letters: n past observations, F existing observations, V tokens of an observation.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor


def past_steps(step: ArrayLike, length: int, stride: int) -> NDArray[np.int64]:
    """The steps of the history at `step`: [...] -> [..., n]."""
    back = stride * np.arange(length, 0, -1)
    return np.maximum(np.asarray(step, np.int64)[..., None] - back, 0)


def newest_not_after(existing: ArrayLike, wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    """Indices into the existing steps, ascending [F], for the wanted ones, [...] -> [...]."""
    # If all existing steps are newer, the first is the nearest.
    return np.maximum(np.searchsorted(np.asarray(existing), wanted, side="right") - 1, 0)


@dataclass(frozen=True)
class TokenHistory:
    """The tokens of past observations of one episode, so that a policy encodes each frame once."""

    steps: list[int] = field(default_factory=list)
    """Of the stored observations, ascending."""
    tokens: list[Tensor] = field(default_factory=list)
    """Of each of them, [V, d]."""

    def add(self, step: int, tokens: Tensor, length: int, stride: int) -> Tensor:
        """Store the observation of this step; returns the history at it, [n, V, d].

        A step that is not after the last one drops the observations from that step on.
        """
        while self.steps and self.steps[-1] >= step:
            self.steps.pop()
            self.tokens.pop()
        self.steps.append(step)
        self.tokens.append(tokens)
        seen = newest_not_after(self.steps, past_steps(step, length, stride)).tolist()
        past = torch.stack([self.tokens[i] for i in seen])
        del self.steps[: seen[0]], self.tokens[: seen[0]]  # older than any later history
        return past
