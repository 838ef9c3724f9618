"""What is in a wide scene, as the BDDL text that the suite compiles.

Every other scene has the task's own things, where the suite puts them. In the rest, each of these things may be
exchanged for another, others are added, and a cabinet may have the other cabinet's looks. What stands where is decided
per episode, so every thing has the whole table as its region.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from envs.seeds import seed_of
from envs.suites.libero.wide.held_out import Problem
from envs.suites.libero.wide.vocabulary import EXCHANGED, RECEPTACLES, REGIONS, STAYING, TWIN_FIXTURES

EXCHANGE = 0.5
"""Probability that a thing is exchanged; of a receptacle, half of it."""
FEWEST_THINGS, MOST_THINGS, MOST_ADDED = 4, 6, 2
"""Movable things in a scene, and how many more than the fewest, or than the task's own, there are."""


class Composition(NamedTuple):
    """The contents of a scene."""

    arena: str
    """The problem's name."""
    table: tuple[str, str]
    """Name and category of what things stand on."""
    movable: dict[str, str]
    """{name: category}"""
    fixtures: dict[str, str]
    supporting: frozenset[str] = frozenset()
    """Movable things on or in which others begin."""

    @property
    def categories(self) -> dict[str, str]:
        """{name: category} of movable things and fixtures."""
        return {**self.movable, **self.fixtures}


_TABLES = {
    "libero_tabletop_manipulation": ("main_table", "table"),
    "libero_floor_manipulation": ("floor", "floor"),
    "libero_kitchen_tabletop_manipulation": ("kitchen_table", "kitchen_table"),
    "libero_living_room_tabletop_manipulation": ("living_room_table", "living_room_table"),
    "libero_study_tabletop_manipulation": ("study_table", "study_table"),
}


def is_own(number: int) -> bool:
    """Whether a wide scene of that number has the task's own things, where LIBERO puts them."""
    return number % 2 == 1


def compose(suites: Composition, task: str, number: int) -> Composition:
    """The contents of a task's wide scene of that number with other things: the same in any process.

    Args:
        suites: the contents of the task's own scene.
        task: a name in tasks.SUITES.
        number: tasks.scene_number of the seeds.
    """
    rng = np.random.default_rng(seed_of("libero wide scene", task, number))
    own = list(suites.movable.values())
    categories: list[str] = []
    for category in own:
        share = EXCHANGE / 2 if category in RECEPTACLES else EXCHANGE
        exchanged = category not in STAYING and rng.random() < share
        categories.append(_other(rng, EXCHANGED, {*own, *categories}) if exchanged else category)
    if not set(categories) & set(RECEPTACLES):
        categories.append(_other(rng, RECEPTACLES, {*own, *categories}))
    fewest, most = max(0, FEWEST_THINGS - len(categories)), max(0, MOST_THINGS - len(categories))
    for _ in range(int(rng.integers(fewest, min(fewest + MOST_ADDED, most) + 1))):
        categories.append(_other(rng, EXCHANGED, {*own, *categories}))
    fixtures = [TWIN_FIXTURES.get(kind, kind) if rng.random() < EXCHANGE else kind for kind in suites.fixtures.values()]
    return Composition(suites.arena, suites.table, _named(categories), _named(fixtures))


def composition_of(problem: Problem) -> Composition:
    """The contents of one of the suite's scenes."""
    supporting = frozenset(problem.movable).intersection(problem.supports.values())
    return Composition(problem.arena, _TABLES[problem.arena], problem.movable, problem.fixtures, supporting)


def bddl_text(composition: Composition) -> str:
    """The scene as a BDDL file, with a goal that episodes replace."""
    table, table_kind = composition.table
    here = composition.categories
    areas = "".join(f"({name}_area (:target {table}) (:ranges ((-0.4 -0.4 0.4 0.4))))" for name in here)
    regions = "".join(f"({region} (:target {name}))" for name, kind in here.items() for region in REGIONS.get(kind, ()))
    first = next(iter(composition.movable))
    return f"""(define (problem {composition.arena})
  (:domain robosuite)
  (:language wide)
  (:regions {areas}{regions})
  (:fixtures {table} - {table_kind} {declared(composition.fixtures)})
  (:objects {declared(composition.movable)})
  (:obj_of_interest {first})
  (:init {"".join(f"(On {name} {table}_{name}_area)" for name in here)})
  (:goal (And (On {first} {table}_{first}_area)))
)"""


def _other(rng: np.random.Generator, kinds: Sequence[str], present: set[str]) -> str:
    """A thing that is not there yet."""
    choices = [category for category in kinds if category not in present]
    return choices[int(rng.integers(len(choices)))]


def _named(categories: list[str]) -> dict[str, str]:
    """{name: category}, numbered as in the suite."""
    count: Counter[str] = Counter()
    named = {}
    for category in categories:
        count[category] += 1
        named[f"{category}_{count[category]}"] = category
    return named


def declared(things: Mapping[str, str]) -> str:
    """Names by category, as BDDL declares them.

    Args:
        things: {name: category}
    """
    kinds = dict.fromkeys(things.values())
    return " ".join(f"{' '.join(name for name in things if things[name] == kind)} - {kind}" for kind in kinds)
