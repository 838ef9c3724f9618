"""Surfaces over parameters, demonstrations and experts, fitted to a grid of runs.

    error of the actions    L(N, D, X) = E + A n^-a + B d^-b           (Hoffmann et al. 2022, "Training Compute-Optimal
    success                 logit p(N, D, X) = E - A n^-a - B d^-b      Large Language Models", equation 2)

    n = (N / N0) (X / X0)^c,   d = D / D0

N are the active parameters per token, D demonstrations per task, X experts of a layer; N0, D0 and X0 are the grid's
geometric means, so that A and B are the terms at the centre of the grid. More experts count as more active parameters,
with exponent c (Clark et al. 2022, "Unified Scaling Laws for Routed Language Models"), which is 0 where the grid has
one X. E is the irreducible part.

Fits: the error by least squares of its logarithm under Huber's loss, as the paper does; success by the likelihood of
binomial counts, with a wide prior on E, which would diverge if all episodes succeed. Both from many starting
points, as the losses have several minima.

Uncertainty: the bootstrap. Residuals of the error are resampled, scaled by sqrt(cells / (cells - fitted parameters)).
Counts of successes are sampled from the fit; where the cells are overdispersed (seeds differ), each cell counts as
proportionally fewer episodes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares, minimize
from scipy.special import expit

from envs.errors import UserError

Floats = NDArray[np.float64]
S = TypeVar("S", bound="Surface")

HUBER_DELTA = 0.03
"""Residuals of the logarithm beyond this count linearly; 1e-3 in the paper, whose runs are less noisy."""
_EXPONENTS = (0.02, 3.0)
_EXPERTS = (-1.0, 1.0)
_SHARES = (1e-6, 1e3)
_LIMIT = 7.0
"""Logits of success stay within plus and minus this."""
_PRIOR_STD = 3.0
"""Of E in logits, around 2: bounds it where all cells succeed or all fail."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A run of the grid and its outcome."""

    parameters: float
    """N: active per token."""
    demonstrations: float
    """D: per task."""
    experts: float
    """X: of each layer."""
    error: float
    """Of actions on held-out demonstrations; above 0."""
    successes: int
    episodes: int


@dataclass(frozen=True, kw_only=True)
class Surface(ABC):
    """A fit."""

    floor: float
    """E"""
    parameters_part: float
    """A"""
    parameters_exponent: float
    """a"""
    data_part: float
    """B"""
    data_exponent: float
    """b"""
    experts_exponent: float
    """c"""
    centre: tuple[float, float, float]
    """N0, D0, X0."""

    def shortfall(self, parameters: Floats | float, demonstrations: Floats | float, experts: Floats | float) -> Floats:
        """A n^-a + B d^-b."""
        n0, d0, x0 = self.centre
        n = np.asarray(parameters) / n0 * (np.asarray(experts) / x0) ** self.experts_exponent
        by_size = self.parameters_part * n**-self.parameters_exponent
        return by_size + self.data_part * (np.asarray(demonstrations) / d0) ** -self.data_exponent

    @abstractmethod
    def __call__(self, parameters: Floats | float, demonstrations: Floats | float, experts: Floats | float) -> Floats:
        """The surface at these points."""


class ErrorSurface(Surface):
    """L."""

    def __call__(self, parameters: Floats | float, demonstrations: Floats | float, experts: Floats | float) -> Floats:
        return self.floor + self.shortfall(parameters, demonstrations, experts)


class SuccessSurface(Surface):
    """p."""

    def __call__(self, parameters: Floats | float, demonstrations: Floats | float, experts: Floats | float) -> Floats:
        return expit(np.clip(self.floor - self.shortfall(parameters, demonstrations, experts), -_LIMIT, _LIMIT))


def fit_error(cells: Sequence[Cell], begin: ErrorSurface | None = None) -> ErrorSurface:
    """The surface of the actions' error.

    Args:
        cells: at least as many as the surface has parameters, of two sizes and two amounts of data.
        begin: the only starting point of the search; None for many.

    Raises:
        UserError: fewer cells than the surface has parameters, or one size or one amount of data only.
    """
    grid = _Grid.of(cells)
    observed = np.log([cell.error for cell in cells])
    middle = float(np.exp(observed.mean()))

    def residuals(vector: Floats) -> Floats:
        return np.log(grid.surface(ErrorSurface, np.exp(vector[:3]), vector[3:])(*grid.columns)) - observed

    low = np.log([_SHARES[0] * middle] * 3).tolist() + [_EXPONENTS[0]] * 2 + [_EXPERTS[0]] * grid.varied_experts
    high = np.log([_SHARES[1] * middle] * 3).tolist() + [_EXPONENTS[1]] * 2 + [_EXPERTS[1]] * grid.varied_experts
    fits = [
        least_squares(residuals, start, bounds=(low, high), loss="huber", f_scale=HUBER_DELTA)
        for start in (
            [np.clip(_vector(begin, np.log(begin.floor), grid), low, high)]
            if begin
            else grid.starts(np.log([0.1 * middle, 0.5 * middle]), np.log([0.1 * middle, 0.4 * middle]))
        )
    ]
    best = min(fits, key=lambda fit: fit.cost)
    return grid.surface(ErrorSurface, np.exp(best.x[:3]), best.x[3:])


def fit_success(cells: Sequence[Cell], begin: SuccessSurface | None = None) -> SuccessSurface:
    """The surface of success; see fit_error."""
    grid = _Grid.of(cells)
    successes = np.array([cell.successes for cell in cells], np.float64)
    episodes = np.array([cell.episodes for cell in cells], np.float64)

    def loss(vector: Floats) -> float:
        surface = grid.surface(SuccessSurface, np.array([vector[0], *np.exp(vector[1:3])]), vector[3:])
        p = surface(*grid.columns)
        prior = 0.5 * ((vector[0] - 2.0) / _PRIOR_STD) ** 2
        return float(prior - np.sum(successes * np.log(p) + (episodes - successes) * np.log1p(-p)))

    bounds = [(-_LIMIT, 2 * _LIMIT), *[(np.log(1e-3), np.log(30.0))] * 2, *[_EXPONENTS] * 2]
    bounds += [_EXPERTS] * grid.varied_experts
    fits = [
        minimize(loss, start, method="L-BFGS-B", bounds=bounds)
        for start in (
            [_vector(begin, begin.floor, grid)] if begin else grid.starts(np.array([0.0, 2.0]), np.log([0.3, 2.0]))
        )
    ]
    best = min(fits, key=lambda fit: fit.fun)
    return grid.surface(SuccessSurface, np.array([best.x[0], *np.exp(best.x[1:3])]), best.x[3:])


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Both surfaces, with bootstrap samples of each."""

    error: ErrorSurface
    error_samples: tuple[ErrorSurface, ...]
    error_std: float
    """Of the residuals' logarithm."""
    success: SuccessSurface
    success_samples: tuple[SuccessSurface, ...]
    episodes_share: float
    """Weight of an episode: 1 without overdispersion."""


def fit_with_bootstrap(cells: Sequence[Cell], samples: int = 200, seed: int = 0) -> Fit:
    """Fit both surfaces, and `samples` bootstrap samples of each.

    Raises:
        UserError: as the fits do.
    """
    rng = np.random.default_rng(seed)
    columns = _Grid.of(cells).columns
    error = fit_error(cells)
    freedom = max(len(cells) - 5 - _Grid.of(cells).varied_experts, 1)
    predicted = error(*columns)
    residuals = (np.log([cell.error for cell in cells]) - np.log(predicted)) * np.sqrt(len(cells) / freedom)
    success = fit_success(cells)
    p, episodes = success(*columns), np.array([cell.episodes for cell in cells])
    counts = np.array([cell.successes for cell in cells])
    spread = float(np.sum((counts - episodes * p) ** 2 / (episodes * p * (1 - p))) / freedom)
    share = 1.0 / max(spread, 1.0)
    fewer = np.maximum(np.round(share * episodes), 1).astype(int)
    error_samples, success_samples = [], []
    for _ in range(samples):
        noisy = np.exp(np.log(predicted) + rng.choice(residuals, len(cells)))
        resampled = rng.binomial(fewer, p)
        others = [
            replace(cell, error=float(e), successes=int(k), episodes=int(n))
            for cell, e, k, n in zip(cells, noisy, resampled, fewer, strict=True)
        ]
        error_samples.append(fit_error(others, begin=error))
        success_samples.append(fit_success(others, begin=success))
    return Fit(
        error=error,
        error_samples=tuple(error_samples),
        error_std=float(np.sqrt(np.mean(residuals**2))),
        success=success,
        success_samples=tuple(success_samples),
        episodes_share=share,
    )


@dataclass(frozen=True, kw_only=True)
class _Grid:
    """The cells' coordinates, and starting points of fits."""

    columns: tuple[Floats, Floats, Floats]
    """N, D and X of every cell."""
    varied_experts: bool

    @classmethod
    def of(cls, cells: Sequence[Cell]) -> _Grid:
        columns = tuple(
            np.array([getattr(cell, name) for cell in cells], np.float64)
            for name in ("parameters", "demonstrations", "experts")
        )
        sizes, amounts, experts = (len(np.unique(column)) for column in columns)
        numbers = 5 + (experts > 1)
        if len(cells) < numbers or sizes < 2 or amounts < 2:
            raise UserError(
                f"a surface of {numbers} numbers needs at least as many runs, of two sizes and two amounts of data; "
                f"got {len(cells)} runs of {sizes} sizes and {amounts} amounts"
            )
        return cls(columns=(columns[0], columns[1], columns[2]), varied_experts=experts > 1)

    def surface(self, kind: type[S], parts: Floats, exponents: Floats) -> S:
        n0, d0, x0 = (float(np.exp(np.log(column).mean())) for column in self.columns)
        return kind(
            floor=float(parts[0]),
            parameters_part=float(parts[1]),
            data_part=float(parts[2]),
            parameters_exponent=float(exponents[0]),
            data_exponent=float(exponents[1]),
            experts_exponent=float(exponents[2]) if self.varied_experts else 0.0,
            centre=(n0, d0, x0),
        )

    def starts(self, floors: Floats, log_parts: Floats) -> Iterator[Floats]:
        """Every combination of these, and of small and large exponents."""
        for floor, part, a, b in product(floors, log_parts, (0.3, 1.0), (0.3, 1.0)):
            yield np.array([floor, part, part, a, b] + [0.1] * self.varied_experts)


def _vector(surface: Surface, floor: float, grid: _Grid) -> Floats:
    """The parameters of a surface that a fit optimises."""
    parts = np.log([surface.parameters_part, surface.data_part])
    exponents = [surface.parameters_exponent, surface.data_exponent]
    return np.array([floor, *parts, *exponents] + [surface.experts_exponent] * grid.varied_experts)
