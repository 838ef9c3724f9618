"""Distributions over action chunks: loss, mode, sampling and log-probability. `flow` has its own file.

    laplace   one Laplace density per action dimension
    tokens    one categorical distribution over uniform bins per action dimension

An ActionDistribution is the distribution of a batch. A module makes it from the action head's output [B, K, P], defines
P, whether the loss takes noise and whether it takes the output for fixed hidden states, and holds further learned
weights. A new distribution is such a module class, registered in action_head.DISTRIBUTIONS.

Everything is float32, whatever the model computes in. Given the observation, the actions of a chunk are independent in
all distributions, so each has its own log-probability, and the first k of a chunk can be scored alone.

Shape letters: B batch, K chunk size, k actions executed of a chunk, A action dims, P head outputs, V bins.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol, Self, TypeAlias

import torch
from torch import Tensor, nn

from vla_model.config import VLAConfig
from vla_model.heads.noise import CorrelatedNoise
from vla_model.numerics.means import mean

Generators: TypeAlias = torch.Generator | Sequence[torch.Generator | CorrelatedNoise]
"""Where random numbers come from: one generator for all rows of a batch, or a source for each row."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A sample of a distribution."""

    actions: Tensor
    """Normalised, float32 [B, K, A]."""
    sampled: Tensor
    """In the distribution's own terms, float32 [B, K, ...]: what its log_prob takes."""


class ActionDistribution(Protocol):
    """Of B chunks of K normalised actions."""

    has_log_prob: ClassVar[bool]
    """Whether log_prob and entropy are defined, as policy gradients need."""

    def loss(self, target: Tensor, mask: Tensor) -> Tensor:
        """The behaviour cloning loss: a mean over the masked actions.

        Args:
            target: float32 [B, K, A], normalised.
            mask: bool, False for actions after the end of an episode, [B, K], or for elements of actions, [B, K, A].
        """
        ...

    def mode(self) -> Tensor:
        """Actions of a deterministic policy, float32 [B, K, A]."""
        ...

    def sample(self, generators: Generators) -> Sample:
        """Sample a chunk per row, without gradient."""
        ...

    def log_prob(self, sampled: Tensor) -> Tensor:
        """float32 [B, k]: log-probability of each sampled action, of all or of the first k of each chunk.

        Args:
            sampled: of a Sample, float32 [B, k, ...].
        """
        ...

    def entropy(self) -> Tensor:
        """Entropy of the distribution that log_prob scores, float32 [B, K], in nats."""
        ...

    def parameters(self) -> Tensor:
        """The model's output, float32 [B, K, ...], to check for non-finite values: samples may still be finite."""
        ...

    def rows(self, rows: slice) -> Self:
        """The distribution of some rows of the batch."""
        ...


@dataclass(frozen=True, kw_only=True)
class LaplaceActions:
    """Independent Laplace distributions, one per action dimension.

    p(a) = exp(-|a - loc| / b) / (2 b),   b = exp(log_scale)
    """

    has_log_prob: ClassVar[bool] = True
    max_log_scale: ClassVar[float] = 2.0

    loc: Tensor
    """float32 [B, K, A]"""
    log_scale: Tensor
    """float32 [B, K, A]"""
    fitted_log_scale: Tensor | None = None
    """For the loss: equal to log_scale, with a gradient that ends at the output layer; None for log_scale itself."""

    @classmethod
    def from_parameters(cls, parameters: Tensor, min_log_scale: float, fitted: Tensor | None = None) -> LaplaceActions:
        """From [B, K, A * 2].

        Args:
            fitted: equal to `parameters`, for fitted_log_scale.
        """
        loc, log_scale = cls._split(parameters, min_log_scale)
        fitted_log_scale = None if fitted is None else cls._split(fitted, min_log_scale)[1]
        return cls(loc=loc, log_scale=log_scale, fitted_log_scale=fitted_log_scale)

    @classmethod
    def _split(cls, parameters: Tensor, min_log_scale: float) -> tuple[Tensor, Tensor]:
        loc, log_scale = parameters.float().unflatten(-1, (-1, 2)).unbind(-1)
        return loc, log_scale.clamp(min_log_scale, cls.max_log_scale)

    def loss(self, target: Tensor, mask: Tensor) -> Tensor:
        """L1 of loc, plus the negative log-likelihood of the scale with loc held fixed.

        The likelihood does not train loc: its gradient with respect to loc is sign(loc - a) / b, so a large b at hard
        samples would stop learning there, and easy samples of tiny b would dominate (Seitzer et al. 2022, "On the
        Pitfalls of Heteroscedastic Uncertainty Estimation"). For the same reason it trains no layer that loc is
        computed by: with loc held fixed it does not see that such a step makes the errors larger, to which it then
        adapts the scale by the next.
        """
        error = (self.loc - target).abs()
        log_scale = self.log_scale if self.fitted_log_scale is None else self.fitted_log_scale
        scale_nll = math.log(2.0) + log_scale + error.detach() * torch.exp(-log_scale)
        return masked_mean(error + scale_nll, mask)

    def mode(self) -> Tensor:
        return self.loc

    @torch.no_grad()
    def sample(self, generators: Generators) -> Sample:
        """By the inverse cumulative distribution function; `sampled` are the actions."""
        uniform = random(torch.rand, self.loc.shape, generators).to(self.loc.device) - 0.5
        tail = (1.0 - 2.0 * uniform.abs()).clamp(min=torch.finfo(torch.float32).tiny)
        actions = self.loc - self.log_scale.exp() * uniform.sign() * tail.log()
        return Sample(actions=actions, sampled=actions)

    def log_prob(self, sampled: Tensor) -> Tensor:
        k = sampled.shape[1]
        loc, log_scale = self.loc[:, :k], self.log_scale[:, :k]
        distance = (sampled.float() - loc).abs() * torch.exp(-log_scale)
        return (-distance - log_scale - math.log(2.0)).sum(-1)

    def entropy(self) -> Tensor:
        return (1.0 + math.log(2.0) + self.log_scale).sum(-1)

    def parameters(self) -> Tensor:
        return torch.stack([self.loc, self.log_scale], dim=-1)

    def rows(self, rows: slice) -> LaplaceActions:
        return replace(self, loc=self.loc[rows], log_scale=self.log_scale[rows], fitted_log_scale=None)


@dataclass(frozen=True, kw_only=True)
class TokenActions:
    """Independent categorical distributions over uniform bins, one per action dimension (RT-2, Brohan et al. 2023).

    The centre of bin i is the normalised action low + (i + 1/2) (high - low) / V. The first bin's centre is action -1
    and the last bin's is 1 in each dimension, so no recorded action is clipped (the processor normalises by mean and
    standard deviation, which puts a command in 1 % of the rows at 10). Older models span -R to R in every dimension
    and clip what lies beyond.
    """

    has_log_prob: ClassVar[bool] = True
    num_bins: ClassVar[int] = 256
    """V"""
    limit: ClassVar[float] = 5.0
    """R, standard deviations from the mean, where the config has no action limits."""

    log_probs: Tensor
    """Of the bins, float32 [B, K, A, V]."""
    low: Tensor | float = -limit
    """Lower edge of the first bin, float32 [A]."""
    high: Tensor | float = limit
    """Upper edge of the last bin, float32 [A]."""

    @classmethod
    def from_parameters(
        cls, parameters: Tensor, low: Tensor | float = -limit, high: Tensor | float = limit
    ) -> TokenActions:
        """From logits [B, K, A * V]."""
        log_probs = parameters.float().unflatten(-1, (-1, cls.num_bins)).log_softmax(-1)
        return cls(log_probs=log_probs, low=low, high=high)

    def loss(self, target: Tensor, mask: Tensor) -> Tensor:
        """Cross-entropy with the bin of each action."""
        bins = ((target - self.low) * (self.num_bins / (self.high - self.low))).long().clamp(0, self.num_bins - 1)
        return masked_mean(-self._at(bins), mask)

    def mode(self) -> Tensor:
        return self._centre(self.log_probs.argmax(-1))

    @torch.no_grad()
    def sample(self, generators: Generators) -> Sample:
        """By the inverse cumulative distribution function; `sampled` are bin indices, [B, K, A]."""
        uniform = random(torch.rand, self.log_probs.shape[:-1], generators).to(self.log_probs.device)
        # In float64 the last sum exceeds every scaled uniform, so that no bin of probability 0 is sampled.
        cumulative = self.log_probs.double().exp().cumsum(-1)
        bins = torch.searchsorted(cumulative, uniform[..., None] * cumulative[..., -1:], right=True).squeeze(-1)
        return Sample(actions=self._centre(bins), sampled=bins.float())

    def log_prob(self, sampled: Tensor) -> Tensor:
        return self._at(sampled.long()).sum(-1)

    def entropy(self) -> Tensor:
        return -(self.log_probs.exp() * self.log_probs).sum((-1, -2))

    def parameters(self) -> Tensor:
        return self.log_probs

    def rows(self, rows: slice) -> TokenActions:
        return replace(self, log_probs=self.log_probs[rows])

    def _at(self, bins: Tensor) -> Tensor:
        """Log-probability of bins [B, k, A], of the same shape."""
        return self.log_probs[:, : bins.shape[1]].gather(-1, bins[..., None]).squeeze(-1)

    def _centre(self, bins: Tensor) -> Tensor:
        return (bins + 0.5) * ((self.high - self.low) / self.num_bins) + self.low


class Laplace(nn.Module):
    """The action head's output -> LaplaceActions."""

    takes_noise: ClassVar[bool] = False
    takes_fitted: ClassVar[bool] = True

    def __init__(self, config: VLAConfig) -> None:
        super().__init__()
        self.num_parameters = 2 * config.action_size
        self._config = config

    def forward(self, parameters: Tensor, noise: Tensor | None = None, fitted: Tensor | None = None) -> LaplaceActions:
        return LaplaceActions.from_parameters(parameters, self._config.min_log_scale, fitted)


class Tokens(nn.Module):
    """The action head's output -> TokenActions."""

    takes_noise: ClassVar[bool] = False
    takes_fitted: ClassVar[bool] = False

    def __init__(self, config: VLAConfig) -> None:
        super().__init__()
        self.num_parameters = TokenActions.num_bins * config.action_size
        limits = torch.tensor(config.action_limits or [[-TokenActions.limit, TokenActions.limit]] * config.action_size)
        low, high = limits.float().unbind(-1)  # [A] each
        # The limits are the centres of the first and the last bin; in older models, their outer edges.
        margin = (high - low) / (2 * (TokenActions.num_bins - 1)) if config.action_limits else torch.zeros(())
        self.low = nn.Buffer(low - margin, persistent=False)
        self.high = nn.Buffer(high + margin, persistent=False)

    def forward(self, parameters: Tensor, noise: Tensor | None = None) -> TokenActions:
        return TokenActions.from_parameters(parameters, self.low, self.high)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of values [B, K, A] over a mask of actions [B, K] or of their elements [B, K, A]; 0 for an empty mask."""
    weights = (mask if mask.ndim == values.ndim else mask[:, :, None]).expand_as(values).float()
    return mean((values * weights).sum(), weights.sum())


def random(sampler: Callable[..., Tensor], shape: Sequence[int], generators: Generators) -> Tensor:
    """torch.rand or torch.randn of that shape [B, ...], on the generators' device."""
    if isinstance(generators, torch.Generator):
        return sampler(shape, generator=generators, device=generators.device)
    return torch.stack(
        [
            source(sampler, shape[1:])
            if isinstance(source, CorrelatedNoise)
            else sampler(shape[1:], generator=source, device=source.device)
            for source in generators
        ]
    )
