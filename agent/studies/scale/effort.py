"""The gain from doubling parameters, demonstrations or experts, by the fitted surfaces at one point of the grid.

Uncertainty by the bootstrap: the middle 90 % over the sampled surfaces, and the share of them in which a doubling is
the best.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent.studies.scale.law import Cell, Fit, Surface

INTERVAL = (5.0, 95.0)
"""Percentiles of the sampled surfaces."""
Point = tuple[float, float, float]
"""Parameters, demonstrations and experts."""


@dataclass(frozen=True, kw_only=True)
class Effort:
    """A doubling."""

    what: str
    success_gain: float
    """In points of percent."""
    success_interval: tuple[float, float]
    error_factor: float
    """Factor of the action error."""
    error_interval: tuple[float, float]
    best_share: float
    """Share of sampled surfaces in which no other doubling gains more success."""
    best_error_share: float
    """Share of sampled surfaces in which no other doubling lowers the error more."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Predicted and measured outcome of a held-out run."""

    error: float
    error_interval: tuple[float, float]
    """Of the measured error: the surface's uncertainty and the scatter of runs."""
    success: float
    """In percent."""
    success_interval: tuple[float, float]
    """Of the measured success: the surface's uncertainty, the scatter of runs and that of as many episodes."""
    measured: Cell

    @property
    def error_within(self) -> bool:
        return self.error_interval[0] <= self.measured.error <= self.error_interval[1]

    @property
    def measured_success(self) -> float:
        """In percent."""
        return 100 * self.measured.successes / self.measured.episodes

    @property
    def success_within(self) -> bool:
        return self.success_interval[0] <= self.measured_success <= self.success_interval[1]


def efforts(fit: Fit, point: Point) -> list[Effort]:
    """Every doubling from a point; of experts only where the grid varied them."""
    doublings = {"parameters": (2, 1, 1), "demonstrations": (1, 2, 1)}
    if fit.error.experts_exponent or fit.success.experts_exponent:
        doublings["experts"] = (1, 1, 2)
    doubled = {what: tuple(p * f for p, f in zip(point, factors, strict=True)) for what, factors in doublings.items()}
    success = {
        what: 100 * (_at(fit.success_samples, p) - _at(fit.success_samples, point)) for what, p in doubled.items()
    }
    error = {what: _at(fit.error_samples, p) / _at(fit.error_samples, point) for what, p in doubled.items()}
    best, best_error = np.stack(list(success.values())).argmax(0), np.stack(list(error.values())).argmin(0)
    return [
        Effort(
            what=what,
            success_gain=float(100 * (fit.success(*p) - fit.success(*point))),
            success_interval=_interval(success[what]),
            error_factor=float(fit.error(*p) / fit.error(*point)),
            error_interval=_interval(error[what]),
            best_share=float(np.mean(best == index)),
            best_error_share=float(np.mean(best_error == index)),
        )
        for index, (what, p) in enumerate(doubled.items())
    ]


def predict(fit: Fit, measured: Cell, seed: int = 0) -> Prediction:
    """Predict a run that the surfaces were not fitted to."""
    rng = np.random.default_rng(seed)
    point = (measured.parameters, measured.demonstrations, measured.experts)
    errors = _at(fit.error_samples, point)
    errors = errors * np.exp(fit.error_std * rng.standard_normal(len(errors)))
    episodes = max(round(fit.episodes_share * measured.episodes), 1)
    rates = 100 * rng.binomial(episodes, _at(fit.success_samples, point)) / episodes
    return Prediction(
        error=float(fit.error(*point)),
        error_interval=_interval(errors),
        success=float(100 * fit.success(*point)),
        success_interval=_interval(rates),
        measured=measured,
    )


def _at(surfaces: Sequence[Surface], point: Sequence[float]) -> NDArray[np.float64]:
    return np.array([float(surface(*point)) for surface in surfaces])


def _interval(values: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.percentile(values, INTERVAL)
    return float(low), float(high)
