"""Frames in memory that two interpreters share.

Shape letters: N worlds, H x W pixels.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Views = Sequence[tuple[int, int]]
"""(H, W) of every camera."""


def num_bytes(num_worlds: int, views: Views) -> int:
    """Size of the memory that `shared_frames` maps."""
    return sum(3 * num_worlds * height * width for height, width in views)


def shared_frames(memory_fd: int, num_worlds: int, views: Views) -> list[NDArray[np.uint8]]:
    """The memory as frames, uint8 [N, H, W, 3] per camera; both interpreters see what either writes."""
    memory = mmap.mmap(memory_fd, 0)
    frames, offset = [], 0
    for height, width in views:
        size = 3 * num_worlds * height * width
        frames.append(np.frombuffer(memory, np.uint8, size, offset).reshape(num_worlds, height, width, 3))
        offset += size
    return frames
