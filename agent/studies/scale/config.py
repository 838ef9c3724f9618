"""Settings of a grid of runs, and the places of its runs; importing this loads neither torch nor scipy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Interval

from agent.training.config import RunConfig
from envs.errors import UserError


@dataclass(frozen=True, kw_only=True)
class GridConfig:
    """Which runs, and their budget."""

    widths: tuple[Annotated[int, Interval(ge=1, le=100_000)], ...] = (64, 96, 128, 192)
    """Of the decoder; its MLPs, towers and experts grow with it."""
    amounts: tuple[Annotated[int, Interval(ge=1, le=100_000)], ...] = (25, 50, 100, 200)
    """Demonstrations per task."""
    experts: tuple[Annotated[int, Interval(ge=1, le=1_000)], ...] = (4,)
    """Of each layer of the action head."""
    repeats: Annotated[int, Interval(ge=1, le=1_000)] = 1
    """Runs of each cell, with seeds that count up from the recipe's."""
    hours: Annotated[float, Interval(gt=0, le=10_000)] = 4.0
    """Of all updates together, on this machine."""
    updates: Annotated[int, Interval(ge=1, le=10_000_000)] | None = None
    """Of each run; if not given, as many as fit the hours."""
    hold_out: tuple[str, ...] = ()
    """Runs that the fit must predict, as WIDTHxDEMONSTRATIONS, e.g. 256x400."""
    held_out_episodes: Annotated[int, Interval(ge=1, le=10_000)] = 10
    """Demonstrations per task that the error of actions is measured on."""


@dataclass(frozen=True, kw_only=True)
class ScaleConfig:
    """Settings of a grid."""

    grid: GridConfig = field(default_factory=GridConfig)
    run: RunConfig = field(default_factory=RunConfig)
    """Of the cells, except what the grid varies."""


@dataclass(frozen=True, kw_only=True, order=True)
class Place:
    """Coordinates of a run in the grid."""

    width: int
    amount: int
    experts: int
    seed: int

    @property
    def name(self) -> str:
        return f"w{self.width}-d{self.amount}-e{self.experts}-s{self.seed}"


def places(config: ScaleConfig) -> list[Place]:
    """All cells of the grid, the smallest first.

    Raises:
        UserError: too few cells for a surface.
    """
    grid = config.grid
    found = [
        Place(width=width, amount=amount, experts=experts, seed=config.run.seed + repeat)
        for amount in sorted(set(grid.amounts))
        for width in sorted(set(grid.widths))
        for experts in sorted(set(grid.experts))
        for repeat in range(grid.repeats)
    ]
    needed = 5 + (len(set(grid.experts)) > 1)
    if len(set(grid.widths)) < 2 or len(set(grid.amounts)) < 2 or len(found) < needed:
        raise UserError(
            f"a surface needs two widths, two amounts and {needed} runs (--widths, --amounts, --repeats); got "
            f"widths {list(grid.widths)}, amounts {list(grid.amounts)}, experts {list(grid.experts)}: {len(found)} runs"
        )
    return found


def held_out_places(config: ScaleConfig) -> list[Place]:
    """Runs that the fit must predict.

    Raises:
        UserError: one is not WIDTHxDEMONSTRATIONS above 0, or is in the grid.
    """
    found: list[Place] = []
    known = {(place.width, place.amount) for place in places(config)}
    for text in config.grid.hold_out:
        width, _, amount = text.partition("x")
        if not (width.isdecimal() and amount.isdecimal() and int(width) and int(amount)):
            raise UserError(f"hold_out {text!r} is not WIDTHxDEMONSTRATIONS, as in 256x400")
        if (int(width), int(amount)) in known:
            raise UserError(f"hold_out {text!r} is in the grid that the fit is made of; hold out one that is not")
        experts = sorted(config.grid.experts)[0]
        found.append(Place(width=int(width), amount=int(amount), experts=experts, seed=config.run.seed))
    return found


def all_places(config: ScaleConfig) -> list[Place]:
    """Cells of the grid, then held-out ones."""
    return [*places(config), *held_out_places(config)]
