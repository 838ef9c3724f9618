"""Conversion of gymnasium's spaces to WorldSpec.

Shape letters: A action dims.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import ArrayLike, NDArray

from envs.errors import UserError
from envs.types import VectorSpec


class ActionBox:
    """Maps a Box of actions to and from [-1, 1]."""

    def __init__(self, space: gymnasium.Space[Any]) -> None:
        """
        Raises:
            UserError: it is not a flat Box with finite bounds.
        """
        is_flat_box = isinstance(space, gymnasium.spaces.Box) and len(space.shape) == 1
        if not is_flat_box or not np.isfinite([space.low, space.high]).all():
            raise UserError(
                f"actions must be a flat Box with finite bounds, got {space}; "
                "wrap the environment in gymnasium.wrappers.TransformAction"
            )
        ones = np.ones(space.shape)
        self.spec = unnamed_vector("action", "of the Box", -ones, ones)
        self._dtype = space.dtype
        low, high = space.low.astype(np.float64), space.high.astype(np.float64)
        self._middle, self._half = (high + low) / 2, (high - low) / 2

    def stretch(self, action: NDArray[np.float32]) -> NDArray[Any]:
        """From [-1, 1] to the Box, [A]."""
        stretched = self._middle + self._half * action
        return (stretched.round() if np.issubdtype(self._dtype, np.integer) else stretched).astype(self._dtype)

    def shrink(self, action: ArrayLike) -> NDArray[np.float32]:
        """From the Box to [-1, 1], [A]; 0 where the Box has no width."""
        offset = np.asarray(action, np.float64) - self._middle
        share = np.divide(offset, self._half, out=np.zeros_like(offset), where=self._half > 0)
        return share.clip(-1.0, 1.0).astype(np.float32)


def unnamed_vector(name: str, unit: str, low: ArrayLike, high: ArrayLike) -> VectorSpec:
    """A VectorSpec with only bounds known; JSON has no infinity, so a missing bound is the largest float32."""
    bounds = [tuple(np.nan_to_num(np.asarray(bound, np.float32)).tolist()) for bound in (low, high)]
    names = tuple(f"{name}_{i}" for i in range(len(bounds[0])))
    return VectorSpec(names=names, units=(unit,) * len(names), low=bounds[0], high=bounds[1])
