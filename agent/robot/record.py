"""Recorder: a drive becomes a Trajectory, as `collect` would have made it, for the dataset and for `train`.

Shape letters: T control periods, A action dims, H x W pixels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from agent.robot.types import Reading
from envs.types import EpisodeSpec
from rollout.types import Trajectory


class Recorder:
    """Keeps what was seen and done in every period of one drive."""

    def __init__(self) -> None:
        self._readings: list[Reading] = []
        self._actions: list[NDArray[np.float32]] = []
        self._by_hand: list[bool] = []
        self._asked: list[int] = []
        self._expert_usage: list[NDArray[np.float32]] = []

    @property
    def num_steps(self) -> int:
        return len(self._actions)

    def asked(self) -> None:
        """The policy is asked about what this period shows."""
        if not self._asked or self._asked[-1] != self.num_steps:
            self._asked.append(self.num_steps)

    def answered(self, expert_usage: NDArray[np.float32] | None) -> None:
        """The policy answered, with the usage of its experts [1, layers, E] if it has any."""
        if expert_usage is not None:
            self._expert_usage.append(expert_usage[0])

    def add(self, reading: Reading, action: NDArray[np.float32], *, by_hand: bool) -> None:
        """A period: what it showed, what the robot was then sent, [A], and whether a person wanted it."""
        self._by_hand.append(by_hand)
        self._readings.append(reading)
        self._actions.append(action)

    def trajectory(
        self, spec: EpisodeSpec, instruction: str, *, success: bool, ended: str, policy_version: int, duration_s: float
    ) -> Trajectory:
        """Everything recorded, at least one period.

        Args:
            spec: names the episode in its dataset.
            instruction: what the policy was told.
            success: the reward of the last period is 1 if so, all others are 0.
            ended: why the drive ended; a failure unless success.
            policy_version: of the weights that drove.
            duration_s: of the drive.
        """
        action = np.stack(self._actions)  # [T, A]
        reward = np.zeros(len(action), np.float32)
        reward[-1] = success
        return Trajectory(
            spec=spec,
            instruction=instruction,
            frames={
                camera: np.stack([reading.frames[camera] for reading in self._readings])  # [T, H, W, 3]
                for camera in self._readings[0].frames
            },
            frame_step=np.arange(len(action)),
            decision_step=np.array(self._asked, np.int64),
            state=np.stack([reading.state for reading in self._readings]),
            action=action,
            label=action,
            intervention=np.array(self._by_hand),
            localization=np.stack([reading.localization for reading in self._readings]),
            reward_terms={"success": reward},
            reward=reward,
            success=success,
            terminated=success,
            truncated=not success,
            failure=None if success else ended,
            policy_version=policy_version,
            expert_usage=np.stack(self._expert_usage) if self._expert_usage else None,
            duration_s=duration_s,
        )
