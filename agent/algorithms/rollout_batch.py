"""Rollouts as ppo and grpo train on them: one row per decision.

A decision is an observation and the first k of the K actions of its chunk: those that were executed (fewer where the
episode ended within them). Log-probability, advantage and value are per executed action; all actions of a chunk were
sampled from the observation at its decision.

The behaviour policy's log-probabilities are recorded when it samples the actions, in float32, and not recomputed:
acting and learning both run the model in float32, so that an update at learning rate 0 sees ratios of 1. Frames are
not augmented, as the policy did not act on augmented ones.

Shape letters: B decisions, k executed actions of a chunk, T control steps of an episode, n earlier observations,
D decisions of several episodes, S state dims, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agent.algorithms.ppo_config import Reward
from envs.errors import UserError
from envs.types import Observation
from rollout.types import Trajectory
from vla_model.inputs.history import newest_not_after, past_steps
from vla_model.inputs.inputs import ModelInputs
from vla_model.inputs.processor import Processor
from vla_model.numerics.tensors import TensorBatch


@dataclass(frozen=True, kw_only=True)
class Advantages:
    """Per-step training targets of one episode, each float32 [T]."""

    advantage: NDArray[np.float32]
    target: NDArray[np.float32]
    """Of the value head."""
    weight: NDArray[np.float32]
    """Of each action in the mean over all; above 0, and 1 on average."""


@dataclass(frozen=True, kw_only=True)
class RolloutBatch:
    """A rollout with the advantages of its actions."""

    trajectories: list[Trajectory]
    """Those that are trained on."""
    advantages: list[Advantages]
    """One for each."""
    metrics: dict[str, float]
    """For the log."""


@dataclass(frozen=True, kw_only=True)
class Decisions(TensorBatch):
    """A batch of decisions; entries of actions that were not executed are 0."""

    inputs: ModelInputs
    sampled: Tensor
    """Actions in the distribution's parametrisation, float32 [B, k, ...]."""
    log_prob: Tensor
    """Of the policy that acted, float32 [B, k]."""
    value: Tensor
    """Predicted by the policy that acted, float32 [B, k]; 0 without a value head."""
    advantage: Tensor
    """float32 [B, k]"""
    target: Tensor
    """float32 [B, k]"""
    weight: Tensor
    """float32 [B, k]; 0 where no action was executed."""
    reference_log_prob: Tensor
    """Of the reference policy, float32 [B, k]; the acting policy's where reference_kl_weight is 0."""


def rewards(trajectory: Trajectory, reward: Reward) -> NDArray[np.float32]:
    """Of every control step, [T]."""
    if reward == "dense":
        return trajectory.reward
    sparse = np.zeros(trajectory.num_steps, np.float32)
    sparse[-1] = trajectory.success
    return sparse


def decisions(rollout_batch: RolloutBatch, processor: Processor, history: tuple[int, int] = (0, 1)) -> Decisions:
    """All decisions of a rollout.

    Args:
        history: (n, stride) of its model.

    Raises:
        UserError: the policy recorded no log-probabilities.
    """
    trajectories = rollout_batch.trajectories
    k = max(int(_executed(t).max()) for t in trajectories)
    rows = [_per_action(t, advantages) for t, advantages in zip(trajectories, rollout_batch.advantages, strict=True)]
    return Decisions(
        inputs=_inputs(trajectories, processor, history),
        **{
            name: torch.from_numpy(
                np.concatenate([_by_decision(row[name], t, k) for row, t in zip(rows, trajectories, strict=True)])
            )
            for name in rows[0]
        },
    )


def _per_action(trajectory: Trajectory, advantages: Advantages) -> dict[str, NDArray[np.float32]]:
    """Columns of Decisions over the steps of one episode, each [T, ...]."""
    if trajectory.log_prob is None or trajectory.sampled is None:
        raise UserError(
            f"the policy of {trajectory.spec.id} recorded no log-probabilities: it must sample actions (sample=True) "
            "from a distribution that has them"
        )
    value = trajectory.value
    return {
        "sampled": trajectory.sampled,
        "log_prob": trajectory.log_prob,
        "reference_log_prob": trajectory.log_prob,
        "value": np.zeros(trajectory.num_steps, np.float32) if value is None else value,
        "advantage": advantages.advantage,
        "target": advantages.target,
        "weight": advantages.weight,
    }


def _executed(trajectory: Trajectory) -> NDArray[np.int64]:
    """Actions executed of each decision's chunk."""
    return np.diff(trajectory.decision_step, append=trajectory.num_steps)


def _by_decision(column: NDArray[np.float32], trajectory: Trajectory, k: int) -> NDArray[np.float32]:
    """[T, ...] -> [decisions, k, ...], zeros where fewer were executed."""
    executed = _executed(trajectory)
    decision = np.repeat(np.arange(len(executed)), executed)  # [T]
    within = np.arange(trajectory.num_steps) - trajectory.decision_step[decision]
    rows = np.zeros((len(executed), k, *column.shape[1:]), np.float32)
    rows[decision, within] = column
    return rows


def _inputs(trajectories: Sequence[Trajectory], processor: Processor, history: tuple[int, int]) -> ModelInputs:
    """The observations at all decisions, and their history: the observations of earlier decisions."""
    steps = [t.decision_step for t in trajectories]
    frames, state = _frames_and_state(trajectories, steps)
    instruction = tuple(t.instruction for t in trajectories for _ in t.decision_step)
    inputs = processor.encode(Observation(frames=frames, state=state, instruction=instruction))
    if not history[0]:
        return inputs
    past = [step[newest_not_after(step, past_steps(step, *history))] for step in steps]  # [decisions, n] each
    past_frames, past_state = processor.encode_past(*_frames_and_state(trajectories, past))
    return replace(inputs, past_frames=past_frames, past_state=past_state)


def _frames_and_state(
    trajectories: Sequence[Trajectory], steps: Sequence[NDArray[np.int64]]
) -> tuple[dict[str, NDArray[np.uint8]], NDArray[np.float32]]:
    """Frames, {camera: [D, ..., H, W, 3]}, and states, [D, ..., S], at some steps.

    Args:
        trajectories: with frames recorded at those steps.
        steps: of each trajectory [decisions, ...].
    """
    at = [np.searchsorted(t.frame_step, step) for t, step in zip(trajectories, steps, strict=True)]
    frames = {
        camera: np.concatenate([t.frames[camera][rows] for t, rows in zip(trajectories, at, strict=True)])
        for camera in trajectories[0].frames
    }
    return frames, np.concatenate([t.state[step] for t, step in zip(trajectories, steps, strict=True)])
