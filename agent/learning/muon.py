"""Muon: orthogonalised momentum, for the matrices between a network's first and last layers.

For a matrix W with gradient g (Jordan et al. 2024, kellerjordan.github.io/posts/muon):

    m <- m + (1 - b) (g - m)            momentum, b = 0.95
    d  = g + b (m - g)                  Nesterov's
    W <- W - r (w W + 0.2 sqrt(max(rows, columns)) O(d)),    r the rate, w the weight decay

O(d) is U V^T of the singular value decomposition d = U S V^T, approximately: all directions are learned at one speed,
where AdamW is slow along those of small gradient. The factor gives O(d) the root mean square of AdamW's steps, 0.2, so
rates and decay have the same scale as AdamW's (Liu et al. 2025, "Muon is Scalable for LLM Training", section 2.2).

O by Newton-Schulz, five times, from X = d / |d| (Frobenius):

    X <- a X + (b A + c A^2) X,    A = X X^T,    (a, b, c) = (3.4445, -4.7750, 2.0315)

The coefficients raise small singular values fastest and let the others end anywhere between about 0.7 and 1.2, which
costs nothing. A convolution [out, in, h, w] is a matrix of `out` rows; stacked experts [E, rows, columns] are E
matrices. Matrices of equal shape are orthogonalised in one batch.

AdamW keeps what is no such matrix: vectors, embeddings and learned tokens, the first layer of pixels, the last layers
and what supervises directly (heatmaps, routers, localization and foresight heads), as the authors do. It keeps LoRA's
factors too: a decoder's weight moves by dB A + B dA, whose singular values O(dB) and O(dA) do not equalise, and whose
size is that of the other factor, B's 0 at first, not 0.2.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vla_model.numerics.precision import native_dtype

_MOMENTUM = 0.95
_A, _B, _C = 3.4445, -4.7750, 2.0315
_ITERATIONS = 5
_RMS = 0.2
_TINY = 1e-7
"""Added to the norm: a gradient of 0 gives no step."""

_OTHERS = frozenset(
    {
        *("stem", "queries", "positions", "ages", "heatmaps", "router", "gate", "to_parameters", "last", "value_head"),
        *("localize_from_vision", "localize_from_queries", "foresee_from_vision", "foresee_from_queries"),
    }
)
"""Parts of the names of AdamW's matrices, besides _OTHER_KINDS. "gate" is the router of transformers' experts, "last"
the last layer of a flow."""
_OTHER_KINDS = ("embed", "lora_")
"""Substrings of such parts."""


def is_hidden_matrix(name: str, parameter: Tensor) -> bool:
    """Whether Muon is for that weight of a model, by its dotted name."""
    parts = name.split(".")
    other = any(part in _OTHERS or any(kind in part for kind in _OTHER_KINDS) for part in parts)
    return parameter.ndim in (2, 3, 4) and not other


def orthogonalised(matrices: Tensor) -> Tensor:
    """O of each: [n, rows, columns] -> float32 of the same shape. In bfloat16 where the device has it natively."""
    x = matrices.to(native_dtype(matrices.device))
    upright = x.shape[1] > x.shape[2]
    x = x.mT if upright else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + _TINY)
    for _ in range(_ITERATIONS):
        gram = x @ x.mT  # [n, rows, rows]
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C), x, beta=_A)
    return (x.mT if upright else x).float()


Each = Callable[[Callable[[Tensor], Tensor], Iterable[Tensor]], Iterable[Tensor]]
"""(function, tensors) -> function of each tensor, in their order."""


class Muon(torch.optim.Optimizer):
    """The step above; the groups' "lr" and "weight_decay" are r and w."""

    def __init__(
        self, parameters: Iterable[nn.Parameter] | Iterable[dict[str, Any]], lr: float, weight_decay: float
    ) -> None:
        """
        Args:
            parameters: matrices, convolutions or stacked matrices, of 2 to 4 dimensions; or groups of them.
        """
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None, *, each: Each = map) -> Any:
        """Update every parameter that has a gradient.

        Args:
            closure: called first; its value is returned.
            each: as `map`, to orthogonalise matrices of different shapes in parallel.
        """
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            gradients = [p.grad for p in parameters]
            for parameter in parameters:
                if not self.state[parameter]:
                    self.state[parameter]["momentum"] = torch.zeros_like(parameter)
            momenta = [self.state[p]["momentum"] for p in parameters]
            torch._foreach_lerp_(momenta, gradients, 1 - _MOMENTUM)
            directions = torch._foreach_lerp(gradients, momenta, _MOMENTUM)
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            by_shape = _by_shape(directions)
            stacks = [torch.cat([_as_matrices(directions[i]) for i in indices]) for indices in by_shape]
            for indices, steps in zip(by_shape, each(orthogonalised, stacks), strict=True):
                rate = group["lr"] * _RMS * math.sqrt(max(steps.shape[1:]))
                counts = [len(_as_matrices(directions[i])) for i in indices]
                for i, step in zip(indices, steps.split(counts), strict=True):
                    parameters[i].add_(step.reshape(parameters[i].shape), alpha=-rate)
        return loss


def _as_matrices(tensor: Tensor) -> Tensor:
    """[rows, columns], [out, in, h, w] or [n, rows, columns] -> [n, rows, columns]."""
    return tensor if tensor.ndim == 3 else tensor.flatten(1)[None]


def _by_shape(tensors: Sequence[Tensor]) -> list[list[int]]:
    """Indices of the tensors whose matrices have equal shapes, those with most numbers first."""
    found: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
    for index, tensor in enumerate(tensors):
        found[_as_matrices(tensor).shape[1:]].append(index)
    return sorted(found.values(), key=lambda indices: -sum(tensors[i].numel() for i in indices))
