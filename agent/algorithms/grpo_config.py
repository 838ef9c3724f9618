"""Settings of grpo; importing this loads no torch. The symbols are those of grpo.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

from annotated_types import Interval

from agent.algorithms.method import Context
from agent.algorithms.ppo_config import PolicyGradientConfig, SurrogateConfig
from agent.runs.seeds import ROUNDS

if TYPE_CHECKING:
    from agent.algorithms.grpo import GRPO


@dataclass(frozen=True, kw_only=True)
class GRPOConfig(PolicyGradientConfig):
    """Settings of grpo."""

    group_size: Annotated[int, Interval(ge=2, le=1_000)] = 8
    """G"""
    standardise: bool = True
    """Whether to divide by the group's standard deviation; without, nearly uniform groups count less."""
    max_rounds: Annotated[int, Interval(ge=1, le=ROUNDS)] = 3
    """Rounds of sampling groups in an iteration, the first included."""
    surrogate: SurrogateConfig = field(default_factory=lambda: SurrogateConfig(clip_high=0.28))

    @property
    def rounds(self) -> int:
        return self.max_rounds

    @property
    def repeats(self) -> int:
        return self.group_size

    def method(self, context: Context) -> GRPO:
        from agent.algorithms.grpo import GRPO

        return GRPO(self, context)
