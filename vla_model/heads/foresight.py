"""Foresight: what the state will be some control steps on, as a training target that every recording has.

    L = smooth_l1(f_v(keypoints, state), s) + smooth_l1(f_q(action queries), s)     s = s_{t+h}, h in foreseen_steps

A demonstrator's hand goes where the things are that the instruction means, so where it will be tells where they are. Of
a chunk of actions the gradient reaches what sees through the decoder, and says only which way to set out; of states to
come it reaches the keypoints at once, and says where to. Simulators' positions teach the same (vla_model/model.py's
localization), but a recording of a real robot has none, and this it has. Dosovitskiy & Koltun 2017, "Learning to Act by
Predicting the Future", foresee measurements at several offsets likewise, and act by them; here they only teach to see.

Steps that are counted from the present tell of a small thing to be fetched first in a few rows only. A keyframe is
where the gripper's command changes, so where the hand grasps or releases: the state at the next one, or at the end
where none is left, tells of that thing in every row before. What is moved without a change of that command has no
keyframe, but the hand turns where it comes to it: a waypoint (dataset/keyframes.py finds both). Where a camera is
calibrated, heatmaps are also taught where in its frame the hand will appear then (vla_model/heads/pointing.py).

Beyond its end an episode stays as it ended. Where a policy failed there is nothing to foresee: its mask is False.

Shape letters: B batch, F steps foreseen, S state dims.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from vla_model.heads.pointing import Pointing, pointing_loss
from vla_model.numerics.means import mean


@dataclass(frozen=True, kw_only=True)
class Foresight:
    """What a model says of them."""

    from_vision: Tensor
    """float32 [B, F * S], normalised: read from the keypoints and the state."""
    from_queries: Tensor
    """float32 [B, F * S], normalised: read from the action queries."""
    pointing: tuple[Pointing, ...] = ()
    """At the hand as it will be at keyframes and waypoints, in every calibrated camera's frame."""

    def loss(self, future: Tensor, known: Tensor) -> Tensor:
        """Smooth L1 of both readings, each a mean over the rows that have a future, summed.

        Args:
            future: float32 [B, F, S], normalised.
            known: bool [B].
        """
        target = future.flatten(1)
        errors = sum(
            F.smooth_l1_loss(reading, target, reduction="none").mean(1)
            for reading in (self.from_vision, self.from_queries)
        )  # [B]
        return mean((errors * known).sum(), known.sum())

    def pointing_loss(self, future_places: Tensor) -> Tensor:
        """See vla_model/heads/pointing.py.

        Args:
            future_places: float32 [B, 2 num_places * calibrated cameras], (u, v) of the hand; out of the frame where
                it is not known.
        """
        return pointing_loss(self.pointing, future_places)
