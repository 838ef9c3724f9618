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

from collections.abc import Callable
from dataclasses import dataclass

from agent.algorithms.cloning import Cloning, CloningConfig
from agent.algorithms.method import Context
from envs.world import World
from vla_model.model import VLA
from vla_model.policy import VLAPolicy
from vla_model.types import Policy


@dataclass(frozen=True, kw_only=True)
class RFTConfig(CloningConfig):
    """Settings of rft."""

    see_failures: bool = True
    """Whether failed episodes teach the auxiliary heads."""

    def method(self, context: Context) -> RFT:
        """See AlgorithmConfig."""
        return RFT(self, context)


class RFT(Cloning[RFTConfig]):
    """rft as the loop knows it: the policy samples its actions."""

    failed = "seen"

    def __init__(self, config: RFTConfig, context: Context) -> None:
        """See Cloning."""
        self.keeps_failures = config.see_failures
        self.n_action_steps = context.n_action_steps
        super().__init__(config, context)

    def actor(self, model: VLA) -> Callable[[World], Policy]:
        """See Method."""
        # Of no version yet: whatever weights are published first, they are taken.
        policy = VLAPolicy(model, self._context.processor, version=-1, sample=True, seed=self._context.seed)
        return lambda _: policy.to("auto")
