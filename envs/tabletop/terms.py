"""Reward terms and conditions of success, batched over the worlds of one task.

Shape letters: n worlds.
"""

from __future__ import annotations

from array_api_compat import array_namespace

from envs.tabletop.episodes.task import View
from envs.tabletop.scene.things import BOWL_RADIUS_M, OBJECT_HALF_HEIGHT_M, RELEASED_OPENING_M
from envs.types import Array

RESTING_SPEED_M_S = 0.08


def near(a: Array, b: Array) -> Array:
    """1 at distance 0, decaying towards 0 (half at 11 cm): [n, 3] x [n, 3] -> [n]."""
    xp = array_namespace(a)
    return 1.0 - xp.tanh(5.0 * xp.linalg.vector_norm(a - b, axis=-1))


def inside_bowl(view: View, object_pos: Array) -> Array:
    """Whether the object rests in the goal bowl and is released, bool [n]."""
    xp = array_namespace(object_pos)
    offset = object_pos - view.of_goal(view.receptacle_pos)
    within = (xp.linalg.vector_norm(offset[:, :2], axis=1) < BOWL_RADIUS_M - 0.008) & (offset[:, 2] < 0.05)
    return within & (view.opening_m > RELEASED_OPENING_M)


def resting_on(view: View, object_pos: Array, support_pos: Array, radius_m: float) -> Array:
    """Whether the object, released and at rest, lies on a thing whose top centre is `support_pos`, bool [n]."""
    xp = array_namespace(object_pos)
    offset = object_pos - support_pos
    within = xp.linalg.vector_norm(offset[:, :2], axis=1) < radius_m
    placed = within & (xp.abs(offset[:, 2] - OBJECT_HALF_HEIGHT_M) < 0.008)
    still = view.of_target(view.object_speed) < RESTING_SPEED_M_S
    return placed & still & (view.opening_m > RELEASED_OPENING_M)


def lifted(object_pos: Array, height_m: float) -> Array:
    """Whether the object's centre is that much higher than when it rested on the table."""
    return object_pos[..., 2] > OBJECT_HALF_HEIGHT_M + height_m
