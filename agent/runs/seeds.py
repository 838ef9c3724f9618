"""Seed ranges of episodes, which keep training and evaluation disjoint.

- from 0: demonstrations, counted up from DemonstrationsConfig.first_seed
- from 100 000: practice, counted up from PracticeConfig.first_seed
- from 900 000: held-out demonstrations for the action error of `llamarm scale`; no recipe reaches them
- from 1 000 000: evaluation: `llamarm eval`, and the end of every run
- from 2 000 000: selection of the best policy during a run
"""

from __future__ import annotations

from envs.errors import UserError

FIRST_PRACTICE_SEED = 100_000
ROUNDS = 16
"""Maximum rounds of episodes in an iteration of practice, each with seeds of its own."""
FIRST_HELD_OUT_SEED = 900_000
FIRST_EVALUATION_SEED = 1_000_000
"""Training seeds lie below, evaluation seeds at or above."""
FIRST_SELECTION_SEED = 2_000_000


def check_training_seed(seed: int) -> int:
    """The seed itself, if it is in the range for training.

    Raises:
        UserError: it is in the range for evaluation.
    """
    if not 0 <= seed < FIRST_EVALUATION_SEED:
        raise UserError(
            f"training seeds lie in 0..{FIRST_EVALUATION_SEED - 1}, those above are for evaluation; got {seed}"
        )
    return seed
