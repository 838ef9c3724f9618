"""Rejection fine-tuning: clone one's own successes (Yuan et al. 2023, "Scaling Relationship on Learning Mathematical
Reasoning with LLMs", section 3.2; in robotics filtered behaviour cloning).

    D_i = demonstrations + all successful episodes of iterations 0..i          policy_{i+1} = clone D_i, from policy_i

    actions    are drawn from the policy, so that it tries what it would not do by its mode; what is cloned is what was
               executed. The L1 of the action loss takes the median of what is noisy.
    mix        demonstrations stay in: alone, a policy's successes are the first states it could do already
    renewal    the weights may be renewed (renewal.py), with more updates in that iteration, for a new learner
               must be taught well before it acts in the next one
    failures   show where things are: their frames teach the auxiliary heads (algorithms/sft.py), their actions nothing.
               A policy of few demonstrations fails by not seeing, in states that its successes do not hold

Left out: weights by return (advantage-weighted regression), as with success alone every kept episode weighs the same;
dropping old successes, as they are successes still.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Interval

from agent.algorithms.renewal import RenewalConfig
from agent.algorithms.sft import SFTConfig


@dataclass(frozen=True, kw_only=True)
class RFTConfig:
    """Settings of rft."""

    demonstrations: str = ""
    """Folder of the dataset that stays in the mix; if not given, that of the run that init names."""
    updates: Annotated[int, Interval(ge=1, le=1_000_000)] = 300
    """In an iteration."""
    rows_per_episode: Annotated[int, Interval(ge=1, le=1_000_000)] = 24
    """Rows to learn from of each episode, evenly spaced where it is longer."""
    renewal: RenewalConfig = field(default_factory=RenewalConfig)
    see_failures: bool = True
    """Whether failed episodes teach the auxiliary heads."""
    sft: SFTConfig = field(default_factory=SFTConfig)
