"""Mixture of Experts: a router sends each token to k of E gated MLPs.

For a token x with router weights R (Mixtral, Jiang et al. 2024, section 2.1):

    p = softmax(R x)                          float32, over the E experts
    S = the k experts of largest p
    y = sum_{e in S} p_e / (sum_{s in S} p_s) * down_e (silu(gate_e x) * up_e x)   [+ shared expert]

The weights are computed as the softmax of R x over S alone: the same, and defined where every p_s underflows.

Decoupled weights (AdaMoE, Shen et al. 2025, "Expertise need not monopolize") add the output of a second linear map A,
(A x)_e, to each weight, so that an expert may be chosen with a small weight. A is initialised to 0. The paper adds it
to p_e; here it is added to the renormalised weight, so that a new layer computes the formula above.

Balancing without an auxiliary loss (Wang et al. 2024, "Auxiliary-Loss-Free Load Balancing Strategy", algorithm 1)
chooses S by p_e + b_e and weighs by p_e. After each update of the weights every b_e moves by a fixed step u, up for
experts that had fewer tokens than the mean and down for the others: `balance_experts`.

`Router.leave_out` excludes an expert, to measure its contribution.

Routing has no noise: a learner computes what the worker computed.

Shape letters: T tokens, D token size, E experts, k experts per token, H hidden size of an expert.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from envs.errors import UserError
from vla_model.numerics.means import mean, of_all_parts, whole_mean
from vla_model.numerics.precision import compute_dtype

_HAS_GROUPED = hasattr(F, "grouped_mm")
"""Since torch 2.10."""

_ALIGNED = 8
"""The grouped product needs rows of a multiple of 16 bytes."""

_FEW = 256
"""Tokens per expert up to which a grouped float32 product is faster on CPUs (docs/results/model.md)."""

_DEAD = 0.04
"""Fraction of an even share, 1 / E of the choices, below which an expert counts as dead: 1 % for 4 experts."""

_ROWS = 32
"""In bfloat16 the rows of each expert are padded to a multiple of this."""


@dataclass(frozen=True, kw_only=True)
class Routing:
    """The experts and weights of each token; [...] are the leading dimensions of the routed tensor."""

    logits: Tensor
    """float32 [..., E]"""
    experts: Tensor
    """int64 [..., k], each token's experts, by descending score."""
    weights: Tensor
    """float32 [..., k], sums to 1 over k, unless the weights are decoupled."""
    counted: Tensor | None = None
    """bool [...]: the tokens that the losses and statistics are computed over; None for all."""

    def usage(self) -> Tensor:
        """Fraction of the k choices that went to each expert, averaged over all but the first dimension, [B, E]."""
        num_experts = self.logits.shape[-1]
        chosen = F.one_hot(self.experts.flatten(1), num_experts)  # [B, T * k, E]
        return chosen.float().mean(1)

    def num_dead_experts(self) -> Tensor:
        """Number of experts with less than _DEAD of an even share of all choices, float32 [].

        The threshold is above 0, because an expert with a single choice in a large batch learns nothing either.
        """
        chosen = of_all_parts(self._choices()).sum(0)  # [E]
        return (chosen * len(chosen) < _DEAD * chosen.sum()).float().sum()

    def load_balancing_loss(self) -> Tensor:
        """E * sum_e f_e P_e: f_e the fraction of choices, P_e the mean probability of expert e.

        Fedus et al. 2021 (Switch Transformer), equation 4; with k > 1 as in Mixtral, but f sums to 1 and not to k, so
        perfect balance gives 1 for any k, and everything in one expert gives E.
        """
        choices = self._choices()
        fractions = whole_mean(choices, choices.sum())  # [E]
        probabilities = self._mean(self.logits.softmax(-1))  # [E]
        return len(choices) * (fractions * probabilities).sum()

    def router_z_loss(self) -> Tensor:
        """Mean squared log-sum-exp of the logits (Zoph et al. 2022, ST-MoE, equation 5)."""
        return self._mean(self.logits.logsumexp(-1, keepdim=True).square()).squeeze(0)

    def entropy_share(self) -> Tensor:
        """Mean entropy of the probabilities, as a share of the largest possible one, log E."""
        log_p = self.logits.log_softmax(-1)
        entropy = -(log_p.exp() * log_p).sum(-1, keepdim=True)
        return self._mean(entropy).squeeze(0) / math.log(max(log_p.shape[-1], 2))

    def _choices(self) -> Tensor:
        """Times that each expert was chosen by the counted tokens, int64 [E]."""
        return _count_choices(self.experts, self.logits.shape[-1], self.counted)

    def _mean(self, values: Tensor) -> Tensor:
        """[..., n] -> [n], over the counted tokens."""
        values = values.flatten(0, -2)  # [T, n]
        counted = values.new_ones(len(values)) if self.counted is None else self.counted.flatten().float()
        return mean((values * counted[:, None]).sum(0), counted.sum())


class Router(nn.Module):
    """Token-choice top-k router, in float32 whatever the model computes in."""

    def __init__(
        self, size: int, num_experts: int, top_k_experts: int, decoupled_weights: bool, balancing_rate: float
    ) -> None:
        super().__init__()
        self.top_k_experts = top_k_experts
        self.balancing_rate = balancing_rate
        self.weight = nn.Parameter(torch.randn(num_experts, size) * size**-0.5)
        self.adapter = nn.Parameter(torch.zeros(num_experts, size)) if decoupled_weights else None
        self.bias = nn.Buffer(torch.zeros(num_experts)) if balancing_rate else None
        self._counts: list[Tensor] = []
        self._left_out: int | None = None

    def leave_out(self, expert: int | None) -> None:
        """Choose among the other experts from now on; None for all. Weights are p_e over the sum of the chosen ones.

        Raises:
            UserError: there is no such expert, or a token needs all of them.
        """
        num_experts = len(self.weight)
        if expert is not None and not 0 <= expert < num_experts:
            raise UserError(f"expert {expert} does not exist; experts: 0 to {num_experts - 1}")
        if expert is not None and self.top_k_experts == num_experts:
            raise UserError(f"each token goes to all {num_experts} experts, so none can be left out")
        self._left_out = expert

    def forward(self, x: Tensor, counted: Tensor | None = None) -> Routing:
        with torch.autocast(x.device.type, enabled=False):
            logits = F.linear(x.float(), self.weight.float())  # [..., E]
            scores = logits if self.bias is None else logits.softmax(-1) + self.bias
            if self._left_out is not None:
                index = torch.full((1,), self._left_out, device=x.device)  # not from the host: a graph cannot
                scores = scores.index_fill(-1, index, float("-inf"))
            experts = scores.topk(self.top_k_experts, dim=-1).indices
            if self.bias is not None and self.training and self.weight.requires_grad:
                # A list, because threads share the router and may append in any order.
                self._counts.append(_count_choices(experts, len(self.bias), counted))
            # Not p_e over their sum: that is 0 over 0 where all p_e of the chosen experts underflow.
            weights = logits.gather(-1, experts).softmax(-1)
            if self.adapter is not None:
                weights = weights + F.linear(x.float(), self.adapter.float()).gather(-1, experts)
            return Routing(logits=logits, experts=experts, weights=weights, counted=counted)

    @torch.no_grad()
    def balance(self, summed: Callable[[Tensor], Tensor]) -> None:
        """Update the biases once, by the choices made in training mode since the last update."""
        if self.bias is not None and self._counts:
            counts = summed(torch.stack(self._counts).sum(0)).float()
            self.bias += self.balancing_rate * (counts.mean() - counts).sign()
            self.forget_choices()

    def forget_choices(self) -> None:
        """Discard the choices counted since the last update of the biases."""
        self._counts.clear()


def balance_experts(model: nn.Module, summed: Callable[[Tensor], Tensor] = lambda counts: counts) -> None:
    """Update the biases of all routers that learn; call it after each update of the weights.

    Args:
        model: which routed a batch, or this process's share of it.
        summed: sums the experts' token counts, int64 [E], over all processes; the identity for one process.
    """
    for router in _routers(model):
        router.balance(summed)


def forget_choices(model: nn.Module) -> None:
    """In all routers, after a batch without an update of the weights."""
    for router in _routers(model):
        router.forget_choices()


def balances(model: nn.Module) -> bool:
    """Whether `balance_experts` would change any bias."""
    return any(router.bias is not None and router.balancing_rate for router in _routers(model))


def keep_balance(model: nn.Module) -> None:
    """Freeze the balancing biases of all routers."""
    for router in _routers(model):
        router.balancing_rate = 0.0


def _routers(model: nn.Module) -> Iterator[Router]:
    return (module for module in model.modules() if isinstance(module, Router))


class MixtureOfExperts(nn.Module):
    """A layer of experts, on any [..., size] tensor.

    Examples:
        >>> MixtureOfExperts(256, num_experts=5, top_k_experts=2)(torch.randn(32, 256)).shape
        torch.Size([32, 256])
    """

    def __init__(
        self,
        size: int,
        num_experts: int,
        top_k_experts: int,
        hidden_size: int | None = None,
        shared_expert: bool = False,
        decoupled_weights: bool = False,
        balancing_rate: float = 0.0,
    ) -> None:
        """
        Args:
            size: last dimension of input and output.
            hidden_size: of each expert; 2 * size where None.
            shared_expert: add an expert that every token passes with weight 1 (DeepSeekMoE, Dai et al. 2024).
            decoupled_weights: add a learned term to each expert's weight that does not affect routing (AdaMoE).
            balancing_rate: u, step of the balancing biases; 0 for none.

        Raises:
            UserError: top_k_experts is not within 1..num_experts.
        """
        super().__init__()
        if not 1 <= top_k_experts <= num_experts:
            raise UserError(f"top_k_experts must be within 1..num_experts = 1..{num_experts}, got {top_k_experts}")
        hidden_size = 2 * size if hidden_size is None else hidden_size
        self.router = Router(size, num_experts, top_k_experts, decoupled_weights, balancing_rate)
        self.gate_up = nn.Parameter(_uniform(num_experts, 2 * hidden_size, size))
        self.down = nn.Parameter(_uniform(num_experts, size, hidden_size))
        self.shared_gate_up = nn.Parameter(_uniform(2 * hidden_size, size)) if shared_expert else None
        self.shared_down = nn.Parameter(_uniform(size, hidden_size)) if shared_expert else None

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_with_routing(x)[0]

    def forward_with_routing(self, x: Tensor, counted: Tensor | None = None) -> tuple[Tensor, Routing]:
        """The output, of the shape and dtype of x, and the routing of every token.

        Args:
            x: [..., size]
            counted: see Routing.
        """
        routing = self.router(x, counted)
        tokens = x.flatten(0, -2)  # [T, D]
        k = self.router.top_k_experts
        by_expert = self._run_experts(tokens, routing.experts.reshape(-1, k))  # [T, k, D]
        y = (by_expert * routing.weights.reshape(-1, k, 1)).sum(1)  # [T, D]
        if self.shared_gate_up is not None and self.shared_down is not None:
            y = y + _gated_mlp(tokens, self.shared_gate_up, self.shared_down)
        return y.to(x.dtype).view_as(x), routing

    def _run_experts(self, tokens: Tensor, experts: Tensor) -> Tensor:
        """Every token through each of its experts: [T, D], [T, k] -> [T, k, D]."""
        dtype = compute_dtype(self.gate_up)
        gate_up, down = self.gate_up.to(dtype), self.down.to(dtype)
        run = run_grouped if _grouped_is_faster(experts.numel() / len(down), down) else run_per_expert
        return run(tokens.to(dtype), experts, gate_up, down)


def _grouped_is_faster(tokens_per_expert: float, down: Tensor) -> bool:
    """Whether one grouped product is faster than a product per expert.

    On CPUs a grouped product writes the gradient of all weights in place, which is faster for few tokens per expert;
    for many, plain products are. In bfloat16 a CPU would compile it for each new shape.
    """
    aligned = down.shape[1] % _ALIGNED == 0 and down.shape[2] % _ALIGNED == 0 and down.data_ptr() % 16 == 0
    if not (_HAS_GROUPED and aligned):
        return False
    if down.is_cuda:
        return down.dtype == torch.bfloat16
    return down.dtype == torch.float32 and tokens_per_expert <= _FEW


def run_per_expert(tokens: Tensor, experts: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
    """[T, D], [T, k], [E, 2 H, D], [E, D, H] -> [T, k, D], by a dense product for each expert.

    Tokens are sorted by expert and split. In bfloat16 each part is padded to a multiple of _ROWS with copies of token
    0, whose outputs are discarded: CPUs compile such products for each new shape, and every batch routes differently.
    Weights are unbound, because autograd would fill a gradient of all E experts for every `W[e]`.
    """
    num_tokens, k = experts.shape
    multiple = _ROWS if tokens.dtype == torch.bfloat16 else 1
    choices = experts.flatten()  # [T * k]
    order = choices.argsort(stable=True)
    counts = _count_choices(choices, len(gate_up))  # [E]
    filled = (counts + multiple - 1) // multiple * multiple
    gap = (filled - counts).cumsum(0) - (filled - counts)  # [E], padding rows before each expert
    rows = torch.arange(len(order), device=order.device) + gap[choices[order]]  # [T * k], where each choice goes
    sources = order.new_zeros(int(filled.sum())).index_copy(0, rows, order // k)
    parts = tokens.index_select(0, sources).split(filled.tolist())
    weights = zip(gate_up.unbind(0), down.unbind(0), strict=True)
    outputs = [_gated_mlp(part, *of_expert) for part, of_expert in zip(parts, weights, strict=True)]
    back = torch.empty_like(order).index_copy(0, order, rows)
    return torch.cat(outputs).index_select(0, back).view(num_tokens, k, -1)


def run_grouped(tokens: Tensor, experts: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
    """As run_per_expert, by one grouped product for all experts: a few kernel launches for any number of experts."""
    num_tokens, k = experts.shape
    choices = experts.flatten()  # [T * k]
    order = choices.argsort(stable=True)
    ends = _count_choices(choices, len(gate_up)).cumsum(0).to(torch.int32)  # [E], of the experts' sorted choices
    x = tokens.index_select(0, order // k)
    gate, up = F.grouped_mm(x, gate_up.transpose(1, 2), offs=ends).chunk(2, dim=-1)
    outputs = F.grouped_mm(F.silu(gate) * up, down.transpose(1, 2), offs=ends)
    back = torch.empty_like(order).index_copy(0, order, torch.arange(len(order), device=order.device))
    return outputs.index_select(0, back).view(num_tokens, k, -1)


def _count_choices(choices: Tensor, num_experts: int, counted: Tensor | None = None) -> Tensor:
    """Times that each expert was chosen, int64 [E]; torch.bincount would synchronise with the GPU.

    Args:
        choices: int64 [..., k]
        num_experts: E
        counted: bool [...], the tokens to count; None for all.
    """
    chosen = choices[..., None] == torch.arange(num_experts, device=choices.device)  # [..., k, E]
    if counted is not None:
        chosen = chosen & counted[..., None, None]
    return chosen.flatten(0, -2).sum(0)


def _gated_mlp(x: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
    gate, up = F.linear(x, gate_up).chunk(2, dim=-1)
    return F.linear(F.silu(gate) * up, down)


def _uniform(*shape: int) -> Tensor:
    """torch's default for a linear layer whose input size is the last dimension."""
    return (torch.rand(shape) * 2.0 - 1.0) * shape[-1] ** -0.5
