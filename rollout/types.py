"""Trajectory: one episode as columns over time, as `collect` yields it and the dataset stores it.

Shape letters: T control steps, F recorded frames, A action dims, S state dims, L localization dims, E experts,
H x W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from envs.types import EpisodeSpec


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """One finished episode. Row t is the observation at control step t and the action taken there.

    Example (an episode of three steps with chunks of two actions):

        frame_step = [0, 2] if only decision steps were rendered, [0, 1, 2] if all were recorded;
        decision_step = [0, 2].
    """

    spec: EpisodeSpec
    instruction: str
    frames: dict[str, NDArray[np.uint8]]
    """{camera: [F, H, W, 3]}"""
    frame_step: NDArray[np.int64]
    """The control step of each frame, [F]."""
    final_frames: dict[str, NDArray[np.uint8]] | None = None
    """{camera: [H, W, 3]} after the last action, for videos; None unless every step was recorded."""
    decision_step: NDArray[np.int64]
    """The control steps at which the policy predicted a chunk."""
    decision_s: NDArray[np.float64] | None = None
    """Duration of the policy's call at each decision, for all worlds that it decided for together; None if unknown."""
    state: NDArray[np.float32]
    """Proprioception before each action, [T, S]."""
    action: NDArray[np.float32]
    """Executed, [T, A] in [-1, 1]."""
    label: NDArray[np.float32]
    """Target for imitation, [T, A]: the expert's noise-free action if an expert labelled, else the executed action."""
    intervention: NDArray[np.bool_] | None = None
    """Whether a person acted in place of the policy, [T]; None if interventions are not possible."""
    held: NDArray[np.bool_] | None = None
    """Whether the robot was held in place by a safety filter or a missed control period, [T]: such an action is not a
    decision of a policy or a person, and must not be cloned. None if nothing holds the robot."""
    localization: NDArray[np.float32]
    """Privileged positions before each action, [T, L], metres."""
    reward_terms: dict[str, NDArray[np.float32]]
    """Unweighted terms, each [T]."""
    reward: NDArray[np.float32]
    """[T]"""
    success: bool
    terminated: bool
    truncated: bool
    failure: str | None
    broken: bool = False
    """Whether an error of its world ended it, described in `failure`. It has no rows and is not trained on."""
    policy_version: int
    """Version of the weights that acted; -1 for a scripted expert."""
    sampled: NDArray[np.float32] | None = None
    """What the policy sampled for each action, in its distribution's own terms, [T, ...]; None if it took the mode."""
    log_prob: NDArray[np.float32] | None = None
    """Log-probability of each sampled action given the observation at its decision, [T]; None for the mode."""
    value: NDArray[np.float32] | None = None
    """Predicted return from each action on, estimated at its decision, [T]; None without a value head."""
    expert_usage: NDArray[np.float32] | None = None
    """Share of each expert in each decision, [decisions, layers, E]; None if the policy reports none."""
    duration_s: float
    """The episode's share of its batch's wall-clock time; for speed reports only."""

    @property
    def num_steps(self) -> int:
        return len(self.action)


class RunEpisodes(Protocol):
    """Run every spec once: `collect` of a policy and a world, or of workers."""

    def __call__(
        self, specs: Sequence[EpisodeSpec], *, n_action_steps: int | None = None, all_frames: bool = False
    ) -> Iterator[Trajectory]:
        """Yield the trajectories in any order."""
        ...
