"""Temporally correlated noise, AR(1): each draw resembles the one for the step before.

    z_0 = e_0,   z_t = c z_{t-1} + sqrt(1 - c^2) e_t,   e_t ~ N(0, 1)

Every z_t on its own is a standard normal, whatever the correlation c is.
"""

from __future__ import annotations

import math

from envs.types import Array


def next_noise(last: Array | None, white: Array, correlation: float) -> Array:
    """z_t, of numpy or torch, of the shape of `white`.

    Args:
        last: z_{t-1}; None for none, at t = 0.
        white: e_t.
        correlation: c, from 0 to below 1.
    """
    return white if last is None else correlation * last + math.sqrt(1.0 - correlation**2) * white
