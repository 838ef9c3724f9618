"""Phases of a motion from the positions of fingertips and target; the same four in all tasks.

    approach   the hand is away from the target, which is at its initial position
    contact    the hand is at the target, which has not moved yet: fingers close, a button yields, a dial turns
    move       the hand is at the target, which has moved: carried, pushed, pulled
    leave      the hand is away from the target, which has moved

The target is the thing that the instruction says to act on: the handle of a drawer, the object to touch in "reach".

Shape letters: T steps, S state dims, L localization dims.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

PHASES = ("approach", "contact", "move", "leave")
AT_HAND_M = 0.06
"""Fingertips closer than this to the target's centre are at it; closed ones touch a cube at 4.2 cm."""
MOVED_M = 0.015


def motion_phases(
    tcp: NDArray[np.float32],  # [T, 3] metres, as the labels
    target: NDArray[np.float32],  # [T, 3]
) -> NDArray[np.str_]:
    """The phase at every step, [T]."""
    at_hand = np.linalg.norm(target - tcp, axis=1) < AT_HAND_M
    moved = np.linalg.norm(target - target[0], axis=1) > MOVED_M
    index = np.where(moved, np.where(at_hand, 2, 3), np.where(at_hand, 1, 0))
    return np.array(PHASES)[index]
