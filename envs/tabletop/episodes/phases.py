"""Phases of a motion, told from where the fingertips and the target are; the same four in all tasks.

    approach   the hand is away from the target, which lies where it lay at first
    contact    the hand is at the target, which has not moved yet: fingers close, a button gives way, a dial turns
    move       the hand is at the target, which has moved: carried, pushed, pulled
    leave      the hand is away from the target, which has moved

The target is what the instruction says to act on: a drawer's is its handle, of "reach" it is the thing to be reached.

Shape letters: T steps, S state dims, L localization dims.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

PHASES = ("approach", "contact", "move", "leave")
AT_HAND_M = 0.06
"""Fingertips nearer to the centre of the target are at it: closed ones touch a cube from 4.2 cm."""
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
