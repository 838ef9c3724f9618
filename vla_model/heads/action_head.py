"""The action head: hidden states of the action queries -> Mixture-of-Experts layers -> a distribution over actions.

    x <- x + MoE_l(norm(x))   for each layer l;   parameters = W norm(x)

The distribution defines what the parameters mean (vla_model/heads/distributions.py, vla_model/heads/flow.py).

Shape letters: B batch, K chunk size, A action dims, d decoder width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vla_model.config import VLAConfig
from vla_model.heads.distributions import ActionDistribution, Laplace, Tokens
from vla_model.heads.flow import Flow
from vla_model.heads.moe import MixtureOfExperts, Routing
from vla_model.heads.names import check_distribution

DISTRIBUTIONS: dict[str, type[Laplace | Tokens | Flow]] = {"laplace": Laplace, "tokens": Tokens, "flow": Flow}
"""Action distributions by name; vla_model/heads/names.py lists the names."""


class ActionHead(nn.Module):
    """Stacked MoE layers, an output layer, and the module that makes a distribution of its output."""

    def __init__(self, config: VLAConfig) -> None:
        super().__init__()
        check_distribution(config.action_distribution)
        size = config.hidden_size
        self.norms = nn.ModuleList(nn.RMSNorm(size) for _ in range(config.moe_layers))
        self.layers = nn.ModuleList(
            MixtureOfExperts(
                size,
                config.num_experts,
                config.top_k_experts,
                config.expert_size,
                shared_expert=config.shared_expert,
                decoupled_weights=config.decoupled_weights,
                balancing_rate=config.balancing_rate,
            )
            for _ in range(config.moe_layers)
        )
        self.last_norm = nn.RMSNorm(size)
        self.distribution = DISTRIBUTIONS[config.action_distribution](config)
        self.to_parameters = nn.Linear(size, self.distribution.num_parameters)

    def forward(
        self, hidden: Tensor, noise: Tensor | None = None, mask: Tensor | None = None
    ) -> tuple[ActionDistribution, tuple[Routing, ...]]:
        """[B, K, d] -> the distribution of [B, K, A], and the routing of every layer.

        Args:
            noise: ModelInputs.action_noise, which the loss of some distributions needs.
            mask: bool [B, K], the actions in the loss; None for all.
        """
        routings = []
        for norm, layer in zip(self.norms, self.layers, strict=True):
            assert isinstance(layer, MixtureOfExperts)
            update, routing = layer.forward_with_routing(norm(hidden), mask)
            hidden = hidden + update
            routings.append(routing)
        return self._distribution(self.last_norm(hidden), noise), tuple(routings)

    def _distribution(self, features: Tensor, noise: Tensor | None) -> ActionDistribution:
        """Of the output layer's input [B, K, d]."""
        parameters = self.to_parameters(features)
        if self.distribution.takes_fitted and torch.is_grad_enabled():
            return self.distribution(parameters, noise, self.to_parameters(features.detach()))
        return self.distribution(parameters, noise)
