"""Losses beside an algorithm's own: where the named things are, and that the experts share the work.

    L + w_loc * L_loc + w_point * L_point + w_bal * L_balance + w_z * L_z

    L_loc      smooth L1 between where the model believes the named things are and where the simulator knows they are:
               a training label from privileged state, never an input; 0 weight trains without it
    L_point    cross-entropy of heatmaps against where those things appear in each camera's frame
               (vla_model/pointing.py): a privileged training label too
    L_balance  Switch Transformer load balancing (Fedus et al. 2021, eq. 4), L_z router z-loss (Zoph et al. 2022, eq. 5)

Shape letters: B batch, L localization dims.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from vla_model.model import VLAOutput


@dataclass(frozen=True, kw_only=True)
class AuxiliaryConfig:
    """Weights of these losses."""

    localization_weight: float = 3.0
    """w_loc; disclosed in every report."""
    pointing_weight: float = 0.5
    """w_point; disclosed in every report."""
    load_balancing_weight: float = 0.01
    """w_bal"""
    router_z_weight: float = 0.001
    """w_z"""


class Labelled(Protocol):
    """A batch with labels from the simulator's state."""

    @property
    def localization(self) -> Tensor:
        """In the world's units, float32 [B, L]."""
        ...

    @property
    def normalised_localization(self) -> Tensor:
        """Normalised, float32 [B, L]."""
        ...


def with_auxiliary(
    loss: Tensor, output: VLAOutput, batch: Labelled, config: AuxiliaryConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    """The sum above, L being `loss`, and its terms for the log."""
    terms = {
        "localization": output.localization_loss(batch.normalised_localization),
        "pointing": output.pointing_loss(batch.localization),
        "load_balancing": output.load_balancing_loss(),
        "router_z": output.router_z_loss(),
    }
    loss = (
        loss
        + config.localization_weight * terms["localization"]
        + config.pointing_weight * terms["pointing"]
        + config.load_balancing_weight * terms["load_balancing"]
        + config.router_z_weight * terms["router_z"]
    )
    return loss, {f"loss/{name}": value.detach() for name, value in terms.items()}
