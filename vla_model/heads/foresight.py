"""Foresight: prediction of future states, an auxiliary loss whose targets every recording has.

    L = smooth_l1(f_v(keypoints, state), s) + smooth_l1(f_q(action queries), s)     s = s_{t+h}, h in foreseen_steps

In a demonstration the gripper moves to the objects in the instruction, so its future position tells where they are. The
gradient of the action loss reaches the vision towers through the decoder and contains only the direction of the next
motion; that of future states reaches the keypoints directly and contains the goal of the motion. Simulator labels
(vla_model/model.py's localization) give the same supervision, but a recording of a real robot has none. Dosovitskiy &
Koltun 2017, "Learning to Act by Predicting the Future", also predict measurements at several offsets, and act by them;
here the predictions are auxiliary losses only.

States at fixed offsets show the position of a small object that is grasped first in few rows only. A keyframe is where
the gripper's command changes, so a grasp or a release: the state at the next keyframe, or at the episode's end after
the last one, shows it in every row before. An object that is moved without a gripper command has no keyframe, but the
gripper's path turns at it: a waypoint (dataset/keyframes.py finds both). For calibrated cameras, heatmaps are also
trained to point at the gripper's position at these states in the frame (vla_model/heads/pointing.py).

Targets beyond an episode's end are its last state. Failed episodes have no targets: their mask is False.

Shape letters: B batch, F future states, S state dims.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from vla_model.heads.pointing import Pointing, pointing_loss
from vla_model.numerics.means import mean


@dataclass(frozen=True, kw_only=True)
class Foresight:
    """Predicted future states of a batch."""

    from_vision: Tensor
    """float32 [B, F * S], normalised: predicted from the keypoints and the state."""
    from_queries: Tensor
    """float32 [B, F * S], normalised: predicted from the action queries."""
    pointing: tuple[Pointing, ...] = ()
    """At the gripper's position at keyframes and waypoints, one per calibrated camera."""

    def loss(self, future: Tensor, known: Tensor) -> Tensor:
        """Smooth L1 of both predictions, each a mean over the rows that have targets, summed.

        Args:
            future: float32 [B, F, S], normalised.
            known: bool [B], whether a row has targets.
        """
        target = future.flatten(1)
        errors = sum(
            F.smooth_l1_loss(prediction, target, reduction="none").mean(1)
            for prediction in (self.from_vision, self.from_queries)
        )  # [B]
        return mean((errors * known).sum(), known.sum())

    def pointing_loss(self, future_places: Tensor) -> Tensor:
        """See vla_model/heads/pointing.py.

        Args:
            future_places: float32 [B, 2 num_places * calibrated cameras], (u, v) of the gripper; outside the
                frame where it is unknown.
        """
        return pointing_loss(self.pointing, future_places)
