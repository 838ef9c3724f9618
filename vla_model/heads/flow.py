"""`flow`: flow matching, a learned velocity field from noise to each action of a chunk.

    x_t = (1 - t) x_0 + t a,   x_0 ~ N(0, I),   t ~ U[0, 1)         a path from noise to the action a
    L = |v(x_t, t; h) - (a - x_0)|^2                                rectified flow (Liu et al. 2022); h a hidden state

Acting takes n Euler steps of dt = 1/n from x_0. The deterministic path has no log-probability, so sampling injects
noise at every step: the stochastic differential equation with the same marginals,

    dx = [v + sigma_t^2 / 2 * grad log p_t(x)] dt + sigma_t dw,     grad log p_t(x) = -(x - t v) / (1 - t)

(Flow-GRPO, Liu et al. 2025; as Flow-SDE for vision-language-action models in pi_RL, Chen et al. 2025). Both take
sigma_t = c sqrt((1 - t) / t) and treat its pole at t = 0 separately; sigma_t = c sqrt(1 - t) has no pole:

    x_{t+dt} ~ N(x + (v - c^2 / 2 (x - t v)) dt,  c^2 (1 - t) dt I)

The sample is the chain x_0 .. x_1, and its log-probability is the sum of those of its transitions. That of x_0 does not
depend on the model and cancels in every probability ratio.

Not implemented: a learned noise level (ReinFlow, Zhang et al. 2025), which needs a second network and bounds on it.

Shape letters: B batch, K chunk size, k actions executed of a chunk, A action dims, w width of the velocity network,
n sampling steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from envs.errors import UserError
from vla_model.config import VLAConfig
from vla_model.heads.distributions import Generators, Sample, masked_mean, random


@dataclass(frozen=True, kw_only=True)
class FlowActions:
    """See ActionDistribution in vla_model/heads/distributions.py."""

    has_log_prob: ClassVar[bool] = True

    velocity: Callable[[Tensor, Tensor, Tensor], Tensor]
    """v: (x [..., A], t [..., 1], condition [..., w]) -> float32 [..., A]; leading dimensions broadcast."""
    condition: Tensor
    """Condition of the velocity field, float32 [B, K, w]."""
    action_size: int
    """A"""
    num_steps: int
    """n"""
    noise_level: float
    """c"""
    noise: Tensor | None = None
    """For the loss: ModelInputs.action_noise, [B, K, A + 1]."""

    def loss(self, target: Tensor, mask: Tensor) -> Tensor:
        """L above, at one point of each action's path.

        Raises:
            UserError: the model's inputs had no action_noise.
        """
        if self.noise is None:
            raise UserError(
                "flow matching needs ModelInputs.action_noise; vla_model.inputs.inputs.sample_action_noise makes it"
            )
        start, time = self.noise[..., :-1], self.noise[..., -1:]
        velocity = self.velocity((1 - time) * start + time * target, time, self.condition)
        return masked_mean((velocity - (target - start)).square(), mask)

    def mode(self) -> Tensor:
        """The end of the deterministic path from the noise's mean; in general not the maximum of the density."""
        x = self.condition.new_zeros(*self.condition.shape[:-1], self.action_size)
        for time in self._times():
            x = x + self.velocity(x, time, self.condition) / self.num_steps
        return x

    @torch.no_grad()
    def sample(self, generators: Generators) -> Sample:
        """By the stochastic sampler; `sampled` is the chain, [B, K, n + 1, A]."""
        shape = (*self.condition.shape[:-1], self.num_steps + 1, self.action_size)
        start, *steps = random(torch.randn, shape, generators).to(self.condition.device).unbind(-2)
        chain = [start]
        for time, noise in zip(self._times(), steps, strict=True):
            mean, std = self._transition(chain[-1], time, self.condition)
            chain.append(mean + std * noise)
        return Sample(actions=chain[-1], sampled=torch.stack(chain, dim=-2))

    def log_prob(self, sampled: Tensor) -> Tensor:
        condition = self.condition[:, : sampled.shape[1], None]  # [B, k, 1, w]
        mean, std = self._transition(sampled[..., :-1, :], self._times(), condition)  # [B, k, n, A], [n, 1]
        return (-(((sampled[..., 1:, :] - mean) / std).square()) / 2 - std.log() - _LOG_ROOT_2_PI).sum((-1, -2))

    def entropy(self) -> Tensor:
        """Of the chain from a given x_0. The noise level is fixed, so the entropy is the same for every model and has
        no gradient: an entropy bonus has no effect.
        """
        per_number = (self._std(self._times()).log() + _LOG_ROOT_2_PI + 0.5).sum()
        return (self.action_size * per_number).expand(self.condition.shape[:-1])

    def parameters(self) -> Tensor:
        return self.condition

    def rows(self, rows: slice) -> FlowActions:
        return replace(self, condition=self.condition[rows], noise=None if self.noise is None else self.noise[rows])

    def _times(self) -> Tensor:
        """t at the beginning of each step, [n, 1]."""
        return torch.arange(self.num_steps, device=self.condition.device)[:, None] / self.num_steps

    def _transition(self, x: Tensor, time: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the step from x [..., A] at time [..., 1]."""
        velocity = self.velocity(x, time, condition)
        drift = velocity - self.noise_level**2 / 2 * (x - time * velocity)
        return x + drift / self.num_steps, self._std(time)

    def _std(self, time: Tensor) -> Tensor:
        return self.noise_level * ((1 - time) / self.num_steps).sqrt()


_LOG_ROOT_2_PI = math.log(2 * math.pi) / 2


class Flow(nn.Module):
    """The action head's output, as a condition -> FlowActions, whose v is an MLP.

    v is float32 whatever the model computes in: a probability ratio divides rounding errors by the small standard
    deviation of a step. The condition, the hidden state's part of the first layer, is computed once for all steps.
    """

    takes_noise: ClassVar[bool] = True
    takes_fitted: ClassVar[bool] = False

    def __init__(self, config: VLAConfig) -> None:
        super().__init__()
        self.config = config
        self.num_parameters = 2 * config.hidden_size
        self.from_point = nn.Linear(config.action_size + 2 * _NUM_FREQUENCIES, self.num_parameters, bias=False)
        self.middle = nn.Linear(self.num_parameters, self.num_parameters)
        self.last = nn.Linear(self.num_parameters, config.action_size)

    def forward(self, parameters: Tensor, noise: Tensor | None = None) -> FlowActions:
        return FlowActions(
            velocity=self._velocity,
            condition=parameters.float(),
            action_size=self.config.action_size,
            num_steps=self.config.flow_steps,
            noise_level=self.config.flow_noise_level,
            noise=noise,
        )

    def _velocity(self, x: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            angles = time * (math.pi * 2.0 ** torch.arange(_NUM_FREQUENCIES, device=x.device))
            features = torch.cat([angles.sin(), angles.cos()], dim=-1).expand(*x.shape[:-1], -1)
            y = F.silu(condition + self.from_point(torch.cat([x, features], dim=-1)))
            return self.last(F.silu(self.middle(y)))


_NUM_FREQUENCIES = 4
"""Time is encoded as sines and cosines of periods 2, 1, 1/2 and 1/4."""
