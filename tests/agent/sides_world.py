"""The campaign's world, whose outcomes can be computed by hand, and a policy that follows its instruction."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from agent.evaluation.evaluate import Evaluation, evaluate
from benchmarks.campaign.sides import SPEC, SidesWorld
from envs.types import EpisodeSpec, Observation
from envs.world import World
from rollout.collect import collect
from vla_model.types import ActionChunk, Policy

__all__ = ["SPEC", "Reader", "SidesWorld", "evaluate_here"]


class Reader:
    """Goes where the instruction says, in chunks of two; stands still in the dark. It has 1 layer of 3 experts."""

    version = 7

    def __init__(self) -> None:
        self.begun: list[tuple[str, int]] = []

    def begin(self, worlds: Sequence[int], instructions: tuple[str, ...], seeds: tuple[int, ...]) -> None:
        self.begun.extend(zip(instructions, seeds, strict=True))

    def act(self, worlds: Sequence[int], observation: Observation) -> ActionChunk:
        side = np.array([1.0 if "right" in text else -1.0 for text in observation["instruction"]], np.float32)
        sees = observation["frames"]["front"].max(axis=(1, 2, 3)) > 0
        usage = np.zeros((len(side), 1, 3), np.float32)
        usage[np.arange(len(side)), 0, np.where(side > 0, 1, 0)] = 1.0
        actions = np.repeat((side * sees)[:, None, None], 2, axis=1).astype(np.float32)
        return ActionChunk(actions=actions, expert_usage=usage)


def evaluate_here(policy: Policy, world: World, specs: Sequence[EpisodeSpec], **options: Any) -> Evaluation:
    """`evaluate` in this process."""
    return evaluate(partial(collect, policy, world), world, specs, **options)
