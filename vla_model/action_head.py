"""The action head: hidden states of the action queries -> Mixture-of-Experts layers -> a distribution over actions.

    x <- x + MoE_l(norm(x))   for each layer l;   parameters = W norm(x)

A distribution is a class with `loss`, `sample`, `mode`, `log_prob` (where `has_log_prob`) and `num_parameters`; a new
one is a new class with its name in DISTRIBUTIONS.

Shape letters: B batch, K chunk length, A action dims, d decoder width, P parameters per action dim.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from vla_model.config import VLAConfig
from vla_model.moe import MixtureOfExperts, Routing


@dataclass(frozen=True, kw_only=True)
class Draw:
    """What was drawn from a distribution."""

    actions: Tensor
    """Normalised, float32 [B, K, A]."""
    drawn: Tensor
    """In the distribution's own terms, float32 [B, K, ...]: what its log_prob takes."""


@dataclass(frozen=True, kw_only=True)
class LaplaceActions:
    """Independent Laplace distributions, one per number of a chunk of normalised actions; everything in float32.

    p(a) = exp(-|a - loc| / b) / (2 b),   b = exp(log_scale)
    """

    num_parameters: ClassVar[int] = 2
    has_log_prob: ClassVar[bool] = True
    log_scale_range: ClassVar[tuple[float, float]] = (-5.0, 2.0)

    loc: Tensor
    """float32 [B, K, A]"""
    log_scale: Tensor
    """float32 [B, K, A]"""

    @classmethod
    def from_parameters(cls, parameters: Tensor) -> LaplaceActions:
        """From the head's output, [B, K, A * P]."""
        loc, log_scale = parameters.float().unflatten(-1, (-1, 2)).unbind(-1)
        return cls(loc=loc, log_scale=log_scale.clamp(*cls.log_scale_range))

    def loss(self, target: Tensor, mask: Tensor) -> Tensor:
        """L1 of loc, plus the negative log-likelihood of the scale with loc held fixed; means over the masked actions.

        The likelihood does not train loc: its gradient there is sign(loc - a) / b, so a model that widens b where it
        errs stops learning exactly there, and easy samples of tiny b drown the rest (Seitzer et al. 2022, "On the
        Pitfalls of Heteroscedastic Uncertainty Estimation").

        Args:
            target: float32 [B, K, A], normalised.
            mask: bool [B, K], False for actions after the end of an episode.
        """
        error = (self.loc - target).abs()
        scale_nll = math.log(2.0) + self.log_scale + error.detach() * torch.exp(-self.log_scale)
        weights = mask[:, :, None].expand_as(error).float()
        return ((error + scale_nll) * weights).sum() / weights.sum().clamp(min=1.0)

    def mode(self) -> Tensor:
        """The most likely actions, [B, K, A]."""
        return self.loc

    def sample(self, generators: torch.Generator | Sequence[torch.Generator]) -> Draw:
        """Actions drawn from the distribution by its inverse cumulative distribution function; drawn are the actions.

        Args:
            generators: one for all rows, or one for each.
        """
        uniform = _random(torch.rand, self.loc.shape, generators).to(self.loc.device) - 0.5
        tail = (1.0 - 2.0 * uniform.abs()).clamp(min=torch.finfo(torch.float32).tiny)
        actions = self.loc - self.log_scale.exp() * uniform.sign() * tail.log()
        return Draw(actions=actions, drawn=actions)

    def log_prob(self, drawn: Tensor) -> Tensor:
        """float32 [B, k]: log-density of the first k drawn actions [B, k, A], summed over their numbers."""
        k = drawn.shape[1]
        loc, log_scale = self.loc[:, :k], self.log_scale[:, :k]
        distance = (drawn.float() - loc).abs() * torch.exp(-log_scale)
        return (-distance - log_scale - math.log(2.0)).sum(-1)

    def entropy(self) -> Tensor:
        """float32 [B, K]"""
        return (1.0 + math.log(2.0) + self.log_scale).sum(-1)


def _random(
    draw: Callable[..., Tensor], shape: Sequence[int], generators: torch.Generator | Sequence[torch.Generator]
) -> Tensor:
    """draw(shape), row by row where every row has its own generator."""
    if isinstance(generators, torch.Generator):
        return draw(shape, generator=generators, device=generators.device)
    return torch.stack([draw(shape[1:], generator=generator, device=generator.device) for generator in generators])


DISTRIBUTIONS: dict[str, type[LaplaceActions]] = {"laplace": LaplaceActions}


class ActionHead(nn.Module):
    """Stacked MoE layers and the last linear layer."""

    def __init__(self, config: VLAConfig) -> None:
        super().__init__()
        if config.action_distribution not in DISTRIBUTIONS:
            raise ValueError(
                f"action distribution {config.action_distribution!r} does not exist; "
                f"distributions: {', '.join(DISTRIBUTIONS)}"
            )
        size = config.hidden_size
        self.distribution = DISTRIBUTIONS[config.action_distribution]
        self.norms = nn.ModuleList(nn.RMSNorm(size) for _ in range(config.moe_layers))
        self.layers = nn.ModuleList(
            MixtureOfExperts(
                size, config.num_experts, config.top_k_experts, config.expert_size, shared_expert=config.shared_expert
            )
            for _ in range(config.moe_layers)
        )
        self.last_norm = nn.RMSNorm(size)
        self.to_parameters = nn.Linear(size, config.action_size * self.distribution.num_parameters)

    def forward(self, hidden: Tensor) -> tuple[LaplaceActions, tuple[Routing, ...]]:
        """[B, K, d] -> the distribution of [B, K, A], and the routing of every layer."""
        routings = []
        for norm, layer in zip(self.norms, self.layers, strict=True):
            assert isinstance(layer, MixtureOfExperts)
            update, routing = layer.forward_with_routing(norm(hidden))
            hidden = hidden + update
            routings.append(routing)
        return self.distribution.from_parameters(self.to_parameters(self.last_norm(hidden))), tuple(routings)
