"""Configs are checked by the ranges beside their fields."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import pytest
import tyro
from annotated_types import Ge, Gt, Interval, MinLen

from agent.runs.checks import check_config


@dataclass(frozen=True, kw_only=True)
class Inner:
    decay_rate: Annotated[float, Interval(ge=0, lt=1)] = 0.5
    steps: tuple[Annotated[int, Ge(1)], ...] = ()
    pair: tuple[Annotated[float, Gt(0)], Annotated[float, Ge(0)]] | None = None
    free: float = 0.0
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class Outer:
    inner: Inner = field(default_factory=Inner)
    unnamed: Annotated[Inner, tyro.conf.arg(name="")] = field(default_factory=Inner)
    count: Annotated[int | None, Ge(1), tyro.conf.arg(metavar="INT")] = None
    other: Annotated[int, Ge(1)] | None = None
    names: Annotated[tuple[str, ...], MinLen(1)] = ("a",)
    low: float = 0.0
    high: float = 1.0

    def check(self) -> None:
        if self.low > self.high:
            raise ValueError(f"low is {self.low}, above high, {self.high}")


def test_a_config_within_its_ranges_passes() -> None:
    check_config(Outer(inner=Inner(decay_rate=0.0, steps=(1, 2), pair=(0.1, 0.0)), count=1, other=2))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            Outer(inner=Inner(decay_rate=1.0)),
            "^inner.decay-rate is 1.0, expected a finite number at least 0 and below 1$",
        ),
        (Outer(inner=Inner(decay_rate=float("nan"))), "inner.decay-rate is nan"),
        (Outer(inner=Inner(free=float("inf"))), "^inner.free is inf, expected a finite number$"),
        (Outer(inner=Inner(steps=(3, 0))), "inner.steps is 0, expected a finite number at least 1"),
        (Outer(inner=Inner(pair=(1.0, -1.0))), "inner.pair is -1.0, expected a finite number at least 0"),
        (Outer(inner=Inner(pair=(0.0, 1.0))), "inner.pair is 0.0, expected a finite number above 0"),
        (Outer(unnamed=Inner(decay_rate=-1.0)), "^decay-rate is -1.0"),
        (Outer(count=0), "count is 0"),
        (Outer(other=0), "other is 0"),
        (Outer(names=()), "names is empty, expected 1 or more"),
        (Outer(count=0, other=0), "count is 0.*; other is 0"),
        (Outer(low=2.0), "low is 2.0, above high, 1.0"),
    ],
)
def test_fields_out_of_range_are_named(config: Outer, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_config(config)
