"""Random numbers of training, determined by the seed and the position in a run."""

from __future__ import annotations

import numpy as np
import torch


def seeded_generator(*numbers: int) -> torch.Generator:
    """A CPU generator that these determine, e.g. (seed, update), so that a resumed run needs no generator state."""
    state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> 1))
