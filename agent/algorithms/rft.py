"""Rejection fine-tuning: clone the policy's own successes (Yuan et al. 2023, "Scaling Relationship on Learning
Mathematical Reasoning with LLMs", section 3.2; in robotics filtered behaviour cloning).

    D_i = demonstrations + all successful episodes of iterations 0..i          policy_{i+1} = clone D_i, from policy_i

    actions    are sampled, so that the policy explores; what was executed is cloned. The L1 action loss is robust to
               their noise, as it fits the median.
    mix        demonstrations stay in: a policy's successes alone cover only initial states that it already solves
    shrink and perturb    (shrink_perturb.py), with more updates in that iteration, as the new weights must be trained
               well before they act in the next one
    failures   are used for auxiliary losses only (algorithms/sft.py): where things are in their frames. A policy from
               few demonstrations fails by perception, in states that its successes do not contain

Left out: weights by return (advantage-weighted regression), as with success alone every kept episode weighs the same;
dropping old successes, which are still valid labels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from agent.algorithms.cloning import Cloning
from agent.algorithms.cloning_config import RFTConfig
from agent.algorithms.method import Context
from envs.world import World
from vla_model.model import VLA
from vla_model.policy import VLAPolicy, on_best_device
from vla_model.types import Policy


class RFT(Cloning[RFTConfig]):
    """RFT: samples actions and clones successful episodes."""

    failed = "auxiliary"

    def __init__(self, config: RFTConfig, context: Context) -> None:
        self.keeps_failures = config.auxiliary_failures
        self.n_action_steps = context.n_action_steps
        super().__init__(config, context)

    def actor(self, model: VLA) -> Callable[[World], Policy]:
        # Version -1, so that the first published weights are always loaded.
        policy = VLAPolicy(model, self._context.processor, version=-1, sample=True, seed=self._context.seed)
        return partial(on_best_device, policy)
