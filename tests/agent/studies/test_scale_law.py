"""Fits of surfaces to grids whose surface is known."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from agent.studies.scale.effort import Effort, Prediction, efforts, predict
from agent.studies.scale.grid import Budget, Place
from agent.studies.scale.law import Cell, ErrorSurface, SuccessSurface, fit_error, fit_success, fit_with_bootstrap
from agent.studies.scale.tables import tables

CENTRE = (1.0e6, 50.0, 4.0)
ERROR = ErrorSurface(
    floor=0.05,
    parameters_part=0.08,
    parameters_exponent=0.5,
    data_part=0.15,
    data_exponent=0.9,
    experts_exponent=0.0,
    centre=CENTRE,
)
SUCCESS = SuccessSurface(
    floor=3.0,
    parameters_part=0.8,
    parameters_exponent=0.6,
    data_part=1.6,
    data_exponent=0.8,
    experts_exponent=0.0,
    centre=CENTRE,
)
SIZES, AMOUNTS = (2.5e5, 5e5, 1e6, 2e6, 4e6), (12.5, 25.0, 50.0, 100.0, 200.0)


def cells(*, error_std: float = 0.0, episodes: int = 1_000_000, seed: int = 0) -> list[Cell]:
    rng = np.random.default_rng(seed)
    return [
        Cell(
            parameters=n,
            demonstrations=d,
            experts=4,
            error=float(ERROR(n, d, 4)) * float(np.exp(error_std * rng.standard_normal())),
            successes=int(rng.binomial(episodes, float(SUCCESS(n, d, 4)))),
            episodes=episodes,
        )
        for n in SIZES
        for d in AMOUNTS
    ]


def test_a_surface_by_hand() -> None:
    assert float(ERROR(1.0e6, 50.0, 4)) == pytest.approx(0.28)
    assert float(ERROR(4.0e6, 50.0, 4)) == pytest.approx(0.05 + 0.04 + 0.15)
    assert float(SUCCESS(1.0e6, 50.0, 4)) == pytest.approx(1 / (1 + np.exp(-0.6)))


def test_a_grid_without_noise_recovers_its_surface() -> None:
    error = fit_error(cells())
    for name in ("floor", "parameters_part", "parameters_exponent", "data_part", "data_exponent"):
        assert getattr(error, name) == pytest.approx(getattr(ERROR, name), rel=0.02), name
    success = fit_success(cells())
    grid = [(n, d) for n in SIZES for d in AMOUNTS]
    found = np.array([float(success(n, d, 4)) for n, d in grid])
    np.testing.assert_allclose(found, [float(SUCCESS(n, d, 4)) for n, d in grid], atol=0.003)


def test_the_exponent_of_experts_is_recovered() -> None:
    grid = []
    for experts in (2, 4, 8):
        for n in SIZES[::2]:
            for d in AMOUNTS[::2]:
                acting = n * (experts / 4) ** 0.4
                error = float(ERROR(acting, d, 4))
                successes = round(1e6 * float(SUCCESS(acting, d, 4)))
                grid.append(
                    Cell(
                        parameters=n,
                        demonstrations=d,
                        experts=experts,
                        error=error,
                        successes=successes,
                        episodes=10**6,
                    )
                )
    assert fit_error(grid).experts_exponent == pytest.approx(0.4, abs=0.02)
    assert fit_success(grid).experts_exponent == pytest.approx(0.4, abs=0.05)
    doublings = efforts(fit_with_bootstrap(grid, samples=5), (1e6, 50.0, 4.0))
    assert [e.what for e in doublings] == ["parameters", "demonstrations", "experts"]


@pytest.mark.long
def test_intervals_of_noisy_grids_cover_the_true_surface() -> None:
    """Nine of ten should; of 2 x 10 predictions at least 14 do (chance 0.99 where they are right)."""
    point = Cell(parameters=8e6, demonstrations=400.0, experts=4, error=0.1, successes=0, episodes=100)
    rng, held = np.random.default_rng(7), 0
    for seed in range(10):
        fit = fit_with_bootstrap(cells(error_std=0.03, episodes=60, seed=seed), samples=40)
        error = float(ERROR(8e6, 400.0, 4)) * float(np.exp(0.03 * rng.standard_normal()))
        successes = int(rng.binomial(100, float(SUCCESS(8e6, 400.0, 4))))
        measured = replace(point, error=error, successes=successes)
        found = predict(fit, measured)
        held += found.error_within + found.success_within
    assert held >= 14


def test_more_data_are_recommended_where_data_limit_success() -> None:
    fit = fit_with_bootstrap(cells(error_std=0.02, episodes=100), samples=40)
    parameters, data = efforts(fit, (1.0e6, 12.5, 4.0))
    true_gain = 100 * float(SUCCESS(1.0e6, 25.0, 4) - SUCCESS(1.0e6, 12.5, 4))
    assert data.success_interval[0] < true_gain < data.success_interval[1]
    assert data.best_share > 0.9 and data.best_error_share > 0.9
    assert parameters.best_share + data.best_share == pytest.approx(1.0)
    assert data.error_factor < parameters.error_factor < 1.0


def test_overdispersed_cells_widen_the_intervals() -> None:
    calm = cells(episodes=100)
    rng = np.random.default_rng(1)
    wild = [replace(c, successes=int(np.clip(c.successes + rng.choice([-20, 20]), 0, 100))) for c in calm]
    widths = []
    for grid in (calm, wild):
        fit = fit_with_bootstrap(grid, samples=40)
        low, high = predict(fit, grid[-1]).success_interval
        widths.append(high - low)
    assert widths[1] > 1.5 * widths[0]


def test_grids_too_small_for_a_surface_are_refused() -> None:
    with pytest.raises(ValueError, match="got 4 runs of 1 sizes and 4 amounts"):
        fit_error(cells()[:4])
    with pytest.raises(ValueError, match="got 5 runs of 1 sizes and 5 amounts"):
        fit_success(cells()[:5])


def test_every_number_of_the_tables_is_beside_its_run() -> None:
    def cell(parameters: float, demonstrations: float, error: float, successes: int) -> Cell:
        return Cell(
            parameters=parameters,
            demonstrations=demonstrations,
            experts=4,
            error=error,
            successes=successes,
            episodes=8,
        )

    runs = [
        (Place(width=64, amount=10, experts=4, seed=0), cell(5e5, 10, 0.25, 1)),
        (Place(width=128, amount=20, experts=4, seed=1), cell(2e6, 20, 0.125, 6)),
    ]
    effort = Effort(
        what="demonstrations",
        success_gain=12.3,
        success_interval=(4.5, 20.0),
        error_factor=0.7,
        error_interval=(0.6, 0.8),
        best_share=0.9,
        best_error_share=0.4,
    )
    prediction = Prediction(
        error=0.1, error_interval=(0.05, 0.11), success=50.0, success_interval=(20.0, 80.0), measured=runs[1][1]
    )
    fit = fit_with_bootstrap(cells(), samples=3)
    budget = Budget(updates=7, seconds_per_update={})
    lines = list(tables(runs, fit, [effort], runs[1][1], [prediction], budget))
    assert lines[2:4] == [
        "| 64 | 0.50 M | 10 | 4 | 0 | 0.2500 | 12.5 | 2 to 47 |",
        "| 128 | 2.00 M | 20 | 4 | 1 | 0.1250 | 75.0 | 41 to 93 |",
    ]
    assert any(line.startswith("| error | 0.05") for line in lines)
    assert any(line.startswith("| success | ") for line in lines)
    assert "| demonstrations | +12.3 | +4.5 to +20.0 | 0.700 | 0.600 to 0.800 | 90 % | 40 % |" in lines
    assert lines[-2:] == [
        "| 2.00 M | 20 | error | 0.1000 | 0.0500 to 0.1100 | 0.1250 | no |",
        "| 2.00 M | 20 | success % | 50.0 | 20.0 to 80.0 | 75.0 of 8 | yes |",
    ]
    for header, rule in itertools.pairwise(lines):
        assert not rule.startswith("|---") or header.count("|") == rule.count("|")
