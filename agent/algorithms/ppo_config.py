"""Settings of ppo, and those that grpo shares; importing this loads no torch. The symbols are those of ppo.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from annotated_types import Interval, Lt

from agent.algorithms.method import AlgorithmConfig, Context
from agent.learning.config import LearnerConfig
from envs.errors import UserError

if TYPE_CHECKING:
    from agent.algorithms.ppo import PPO
    from vla_model.model import VLA

Reward = Literal["success", "dense"]
"""1 for a success at the end of its episode; or the world's weighted terms at every step."""


@dataclass(frozen=True, kw_only=True)
class SurrogateConfig:
    """The clipped loss, and how often it is optimised on a rollout."""

    epochs: Annotated[int, Interval(ge=1, le=1_000)] = 3
    """Passes over a rollout."""
    clip_low: Annotated[float, Interval(gt=0, lt=1)] = 0.2
    clip_high: Annotated[float, Interval(gt=0, le=1_000_000)] = 0.2
    max_kl: Annotated[float, Interval(gt=0, le=1_000_000)] = 0.05
    """No further epoch after one whose mean "policy/kl" exceeds this."""
    min_log_scale: Annotated[float, Lt(2)] = -2.0
    """VLAConfig.min_log_scale from the first iteration on; below 2. Cloned policies have next to no variance in some
    dimensions (a gripper that opens or closes): nothing is explored there, and any update moves the ratios out of the
    clip."""
    noise_correlation: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Of an action's noise with the previous action's, below 1 (vla_model/heads/noise.py)."""
    entropy_weight: Annotated[float, Interval(ge=0, le=1_000_000)] = 0.0
    """w_ent"""
    reference_kl_weight: Annotated[float, Interval(ge=0, le=1_000_000)] = 0.0
    """w_ref"""


@dataclass(frozen=True, kw_only=True)
class PolicyGradientConfig(AlgorithmConfig):
    """Settings of an algorithm whose loss this is."""

    acts_by_average: ClassVar[bool] = False
    repeats_loss: ClassVar[bool] = False

    reward: Reward = "success"
    surrogate: SurrogateConfig = field(default_factory=SurrogateConfig)

    def check_learner(self, learner: LearnerConfig, iterations: int) -> None:
        """
        Raises:
            UserError: ema_decay or num_updates is set.
        """
        del iterations
        if learner.ema_decay:
            raise UserError(
                f"learner.ema-decay is {learner.ema_decay}, but ppo and grpo need the ratios of the learner's weights, "
                "so these must act and not their average; leave it out"
            )
        if learner.num_updates is not None:
            raise UserError(
                f"learner.num-updates is {learner.num_updates}, but those of ppo and grpo depend on the episodes; "
                "leave it out, and the learning rate follows the iterations"
            )

    def prepare(self, model: VLA) -> None:
        """Bound the scale of its action distribution, and stop the balancing of its router."""
        from vla_model.heads.moe import keep_balance

        model.config.min_log_scale = self.surrogate.min_log_scale
        keep_balance(model)  # balancing would change the policy, and so the ratios, outside the loss


@dataclass(frozen=True, kw_only=True)
class PPOConfig(PolicyGradientConfig):
    """Settings of ppo."""

    needs_values: ClassVar[bool] = True

    discount: Annotated[float, Interval(ge=0, le=1)] = 0.99
    """g, per control step"""
    gae_lambda: Annotated[float, Interval(ge=0, le=1)] = 0.95
    """l"""
    value_weight: Annotated[float, Interval(gt=0, le=1_000_000)] = 0.5
    """w_v"""
    value_clip: Annotated[float, Interval(gt=0, le=1_000_000)] = 0.2
    """c"""
    warmup_iterations: Annotated[int, Interval(ge=0, le=100_000)] = 2
    """Of the first so many, only the value head learns."""

    def method(self, context: Context) -> PPO:
        from agent.algorithms.ppo import PPO

        return PPO(self, context)

    def check_learner(self, learner: LearnerConfig, iterations: int) -> None:
        """
        Raises:
            UserError: as PolicyGradientConfig, or the warm-up lasts for the whole run.
        """
        super().check_learner(learner, iterations)
        if self.warmup_iterations >= iterations:
            raise UserError(
                f"only the value head learns in algorithm.warmup-iterations, {self.warmup_iterations}, and the run has "
                f"only {iterations} iterations, so the policy would learn nothing; lower the first or raise iterations"
            )
