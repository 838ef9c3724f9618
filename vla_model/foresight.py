"""Foresight: what the state will be some control steps on, as a training target that every recording has.

    L = smooth_l1(f_v(keypoints, state), s) + smooth_l1(f_q(action queries), s)     s = s_{t+h}, h in foreseen_steps

A demonstrator's hand goes where the things are that the instruction means, so where it will be tells where they are. Of
a chunk of actions the gradient reaches what sees through the decoder, and says only which way to set out; of states to
come it reaches the keypoints at once, and says where to. Simulators' positions teach the same (vla_model/model.py's
localization), but a recording of a real robot has none, and this it has. Dosovitskiy & Koltun 2017, "Learning to Act by
Predicting the Future", foresee measurements at several offsets likewise, and act by them; here they only teach to see.

Beyond its end an episode stays as it ended. Where a policy failed there is nothing to foresee: its mask is False.

Left out: where in the frame the hand will be, which takes a calibrated camera.

Shape letters: B batch, F steps foreseen, S state dims.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, kw_only=True)
class Foresight:
    """What a model foresees."""

    from_vision: Tensor
    """float32 [B, F * S], normalised: read from the keypoints and the state."""
    from_queries: Tensor
    """float32 [B, F * S], normalised: read from the action queries."""

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
        return (errors * known).sum() / known.sum().clamp(min=1)
