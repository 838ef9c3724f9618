"""DAgger: the expert says what to do where the learner gets to.

Ross et al. 2011, "A Reduction of Imitation Learning and Structured Prediction to No-Regret Online Learning", algorithm
3.1:

    p_i     = b_i expert + (1 - b_i) learner_i     who acts, drawn anew at every decision;   b_i = beta decay^i
    D_i     = D_{i-1} + {(s, expert(s)) for every state s that p_i visited}        learner_{i+1} = clone D_i

The policy that begins was cloned from demonstrations, which are D_{-1}: so beta may begin below 1. It must not vanish
at once: a learner that cannot grasp yet never comes to carry, and an episode in which it is stuck is one state many
times over; the expert's share gets it on. Episodes in which the learner failed are kept: their states are those it
needs to be taught about.

    chunks     the learner executes the first `n_action_steps` actions of each of its chunks: by default one, so it
               decides at every control step; where it is evaluated with more, as many take it to the states that it
               gets to then. The world goes one control step at a time all the same, because the expert must see every
               state; row t's label is thus exact. The later labels of row t's chunk are the expert's in the states
               that followed: those of its own path only once the learner follows.
    renewal    a learner that goes on from a policy of few demonstrations stays behind one that learns D_i from scratch
               (docs/results/dagger.md), so its weights may be renewed (renewal.py), best in the last iteration
    learner    acts by its mode, as it will when it is evaluated

    drives     a person's labels, where one took a drive over (agent/console/), stand beside the scripted expert's

Left out: asking the expert only where the learner is unsure (SafeDAgger and kin), as a scripted expert costs nothing.

Shape letters: N worlds, n of them that are decided for, K chunk length, A action dims.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import tyro
from annotated_types import Interval
from torch import Tensor

from agent.algorithms.cloning import Cloning, CloningConfig
from agent.algorithms.method import Context
from envs.arrays import rows_of, to_numpy
from envs.errors import UserError
from envs.types import Observation
from envs.world import World
from vla_model.config import VLAConfig
from vla_model.model import VLA
from vla_model.policy import VLAPolicy
from vla_model.types import ActionChunk, Policy
from vla_model.weights.finetune import FineTuning

_MIXTURE_STREAM = 0x6D6978
"""Keeps this generator apart from whatever else is drawn from an episode's seed."""


@dataclass(frozen=True, kw_only=True)
class DaggerConfig(CloningConfig):
    """Settings of dagger."""

    asks_expert: ClassVar[bool] = True

    beta: Annotated[float, Interval(ge=0, le=1)] = 0.5
    """Share of the expert's actions in the first iteration."""
    beta_decay: Annotated[float, Interval(ge=0, le=1)] = 0.9
    """Of that share, per iteration."""
    drives: Annotated[tuple[str, ...], tyro.conf.arg(metavar="DIR ...")] = ()
    """Recorded drives to learn from too: what a person did in those that one took over, and whole those that succeeded
    without (docs/console.md)."""
    n_action_steps: Annotated[int, Interval(ge=1, le=1_000)] = 1
    """Actions that the learner, or the expert where it acts, executes of each decision while practising."""

    def method(self, context: Context) -> Dagger:
        """See AlgorithmConfig."""
        return Dagger(self, context)

    def check_model(self, model: VLAConfig, fine_tuning: FineTuning, iterations: int) -> None:
        """
        Raises:
            UserError: see check_dagger and CloningConfig.
        """
        check_dagger(self, model.chunk_size)
        super().check_model(model, fine_tuning, iterations)


class Dagger(Cloning[DaggerConfig]):
    """dagger as the loop knows it: the policy acts by its mode, or the expert in its place, one step at a time."""

    failed = "imitated"
    keeps_failures = True
    n_action_steps = 1

    def __init__(self, config: DaggerConfig, context: Context) -> None:
        """See Cloning."""
        self.drives = config.drives
        super().__init__(config, context)

    def actor(self, model: VLA) -> Callable[[World], Policy]:
        """See Method."""
        # Of no version yet: whatever weights are published first, they are taken.
        policy = VLAPolicy(model, self._context.processor, version=-1, seed=self._context.seed)
        config = self._config
        return lambda world: Mixture(policy.to("auto"), world, config)


def check_dagger(config: DaggerConfig, chunk_size: int) -> None:
    """
    Raises:
        UserError: the learner's chunks have not as many actions as it is to execute.
    """
    if not 1 <= config.n_action_steps <= chunk_size:
        raise UserError(
            f"algorithm.n_action_steps must be within 1..{chunk_size}, the chunk's length, got {config.n_action_steps}"
        )


class Mixture:
    """Policy of chunk length 1: the learner's next action or the expert's, and the expert's as the label.

    The learner's version decides the share: the iteration, or with overlap, from the second one on, the one before.
    """

    def __init__(self, learner: VLAPolicy, world: World, config: DaggerConfig) -> None:
        """It must act in that same world.

        Raises:
            UserError: as `check_dagger`.
        """
        check_dagger(config, learner.model.config.chunk_size)
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
            self._generators[n] = np.random.default_rng([_MIXTURE_STREAM, seed])
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
        """What the learner would do in these worlds next, and whether the expert acts in its place."""
        actions = to_numpy(self._learner.act(worlds, observation).actions)  # [n, K, A]
        self._chunk[worlds] = actions[:, : self._config.n_action_steps]
        share = self._config.beta * self._config.beta_decay**self.version
        self._by_expert[worlds] = [self._generators[n].random() < share for n in worlds]
        self._executed[worlds] = 0
