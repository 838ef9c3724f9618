"""Temporally correlated noise, AR(1).

    z_0 = e_0,   z_t = c z_{t-1} + sqrt(1 - c^2) e_t,   e_t ~ N(0, 1)

Every z_t is marginally a standard normal for any correlation c.
"""

from __future__ import annotations

import math

from envs.types import Array


def next_noise(last: Array | None, white: Array, correlation: float) -> Array:
    """z_t, of the shape and library (numpy or torch) of `white`.

    Args:
        last: z_{t-1}; None at t = 0.
        white: e_t, white noise.
        correlation: c, from 0 to below 1.
    """
    return white if last is None else correlation * last + math.sqrt(1.0 - correlation**2) * white
