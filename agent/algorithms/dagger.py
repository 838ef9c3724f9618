"""DAgger: clone expert labels on the states that the learner visits.

Ross et al. 2011, "A Reduction of Imitation Learning and Structured Prediction to No-Regret Online Learning", algorithm
3.1:

    p_i     = b_i expert + (1 - b_i) learner_i     who acts, sampled at every decision;   b_i = beta decay^i
    D_i     = D_{i-1} + {(s, expert(s)) for every state s that p_i visited}        learner_{i+1} = clone D_i

The initial policy was cloned from demonstrations, which are D_{-1}, so beta may start below 1. It must not be 0 at
once: a learner that cannot grasp yet never visits the states of carrying, and an episode in which it is stuck repeats
one state; the expert's actions get it past. Failed episodes are kept: their states need labels most.

    chunks     the learner executes the first `n_action_steps` actions of each chunk, by default one; with as many as
               in evaluation it visits the states that it will visit there. The expert is queried at every control
               step all the same, so row t's first label is exact. The later labels of row t's chunk are the expert's
               in the states that followed, which are on the expert's own path only once the learner follows it.
    shrink and perturb    a learner warm-started from few demonstrations stays behind one trained on D_i from scratch
               (docs/results/dagger.md); see shrink_perturb.py, best in the last iteration
    learner    acts by the mode of its action distribution, as in evaluation
    drives     a person's corrections, where they took a drive over (agent/console/), are trained on too

Left out: querying the expert only where the learner is uncertain (SafeDAgger), as a scripted expert costs nothing.

Shape letters: N worlds, n of them that are acted in, K chunk size, A action dims.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from torch import Tensor

from agent.algorithms.cloning import Cloning
from agent.algorithms.cloning_config import DaggerConfig
from agent.algorithms.method import Context
from envs.arrays import rows_of, to_numpy
from envs.types import Observation
from envs.world import World
from vla_model.model import VLA
from vla_model.policy import VLAPolicy
from vla_model.types import ActionChunk, Policy

_STREAM = 0x6D6978
"""Makes this generator independent of others with the same episode seed."""


class Dagger(Cloning[DaggerConfig]):
    """DAgger: the policy's mode or the expert acts, one control step at a time; all episodes are cloned."""

    failed = "cloned"
    keeps_failures = True
    n_action_steps = 1

    def __init__(self, config: DaggerConfig, context: Context) -> None:
        self.drives = config.drives
        super().__init__(config, context)

    def actor(self, model: VLA) -> Callable[[World], Policy]:
        # Version -1, so that the first published weights are always loaded.
        policy = VLAPolicy(model, self._context.processor, version=-1, seed=self._context.seed)
        config = self._config
        return lambda world: DaggerPolicy(policy.to("auto"), world, config)


class DaggerPolicy:
    """Policy with chunks of one action: the learner's next action or the expert's, and the expert's as the label.

    The expert's share follows from the learner's version: the iteration or, with overlap, the one before it.
    """

    def __init__(self, learner: VLAPolicy, world: World, config: DaggerConfig) -> None:
        """
        Args:
            world: the one it acts in, which gives the expert's actions.
            config: of dagger, checked against the learner's model.
        """
        self.version = learner.version
        self._learner = learner
        self._world = world
        self._config = config
        self._generators: dict[int, np.random.Generator] = {}
        num_worlds, action_size = world.num_envs, world.world_spec.action.size
        self._chunk = np.zeros((num_worlds, config.n_action_steps, action_size), np.float32)  # [N, k, A]
        self._executed = np.zeros(num_worlds, np.int64)  # [N], actions of that chunk
        self._by_expert = np.zeros(num_worlds, np.bool_)  # [N]

    def load_weights(self, version: int, state_dict: Mapping[str, Tensor]) -> None:
        self._learner.load_weights(version, state_dict)
        self.version = version
        self._generators.clear()

    def begin(self, worlds: Sequence[int], instructions: tuple[str, ...], seeds: tuple[int, ...]) -> None:
        self._learner.begin(worlds, instructions, seeds)
        for n, seed in zip(worlds, seeds, strict=True):
            self._generators[n] = np.random.default_rng([_STREAM, seed])
        self._executed[list(worlds)] = self._config.n_action_steps

    def act(self, worlds: Sequence[int], observation: Observation) -> ActionChunk:
        worlds = list(worlds)
        due = [row for row, n in enumerate(worlds) if self._executed[n] == self._config.n_action_steps]
        if due:
            self._decide([worlds[row] for row in due], rows_of(observation, due))
        expert = to_numpy(self._world.expert_action())[worlds, None]  # [n, 1, A]
        next_ = self._chunk[worlds, self._executed[worlds], None]  # [n, 1, A]
        self._executed[worlds] += 1
        return ActionChunk(actions=np.where(self._by_expert[worlds, None, None], expert, next_), labels=expert)

    def _decide(self, worlds: list[int], observation: Observation) -> None:
        """Predict the learner's next chunk in these worlds, and sample whether the expert acts in its place."""
        actions = to_numpy(self._learner.act(worlds, observation).actions)  # [n, K, A]
        self._chunk[worlds] = actions[:, : self._config.n_action_steps]
        share = self._config.beta * self._config.beta_decay**self.version
        self._by_expert[worlds] = [self._generators[n].random() < share for n in worlds]
        self._executed[worlds] = 0
