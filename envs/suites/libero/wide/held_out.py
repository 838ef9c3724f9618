"""What LIBERO-PRO evaluates, as hashes: wide episodes have none of it.

Over all files of LIBERO-PRO's four suites for the four base suites, held out are

- sentences: of every BDDL file and of published evaluations, without articles, case and punctuation;
- goals: of the suite "task", unless one of LIBERO's 40 tasks has the goal too. A goal is of categories: no wide episode
  puts any wine bottle on any plate;
- tasks: every file's goal together with the categories of all that is in its scene;
- placements: of every official state, where the things stand that a predicate of the goal names. Wide episodes whose
  goal has that predicate do not begin with these things within MARGIN_M of there, in x and in y.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from envs.seeds import seed_of
from envs.suites.libero.scene import bddl_path, official_states
from envs.suites.libero.tasks import SUITES, TRAIN, VARIATIONS, published_sentence

from libero.libero.envs.bddl_utils import robosuite_parse_problem  # isort: skip

Predicate = tuple[str, ...]
"""The suite's, such as ("on", "akita_black_bowl_1", "plate_1"), or of categories and places instead of names."""
Point = Sequence[float] | NDArray[np.float64]

BASES = ("spatial", "object", "goal", "10")
"""The suites that LIBERO-PRO varies."""
ORIGINS = {"libero_study_tabletop_manipulation": (-0.2, 0.0)}
"""{arena: what its BDDL files' regions are relative to}, where that is not the world's origin."""
MARGIN_M = 0.03
CELL_M = 2 * MARGIN_M
_NUM_ARM = 9
"""Positions of the arm and the gripper, which come first in a state; then 7 per movable thing."""


class HeldOut(NamedTuple):
    """Hashes of what wide episodes must not have."""

    sentences: Collection[int]
    goals: Collection[int]
    tasks: Collection[int]
    placements: Collection[int]

    def has_sentence(self, sentence: str) -> bool:
        """Whether LIBERO-PRO says it."""
        return sentence_hash(sentence) in self.sentences

    def has_task(self, goal: Iterable[Predicate], categories: Mapping[str, str]) -> bool:
        """Whether LIBERO-PRO asks for that goal, or for that goal in that scene.

        Args:
            categories: {name: category} of all things in the scene.
        """
        return goal_hash(goal, categories) in self.goals or task_hash(goal, categories) in self.tasks

    def has_placement(
        self, arena: str, goal: Iterable[Predicate], categories: Mapping[str, str], points: Mapping[str, Point]
    ) -> bool:
        """Whether the things of one of the goal's predicates stand where LIBERO-PRO has them.

        Args:
            arena: the problem's name.
            points: {name: position, [2 or more]} of all things.
        """
        return any(
            cell in self.placements
            for predicate in goal
            for cell in _cells(arena, predicate, categories, points, (0.0,))
        )


def sentence_hash(sentence: str) -> int:
    """Of a sentence without articles, case and punctuation."""
    words = re.findall(r"[a-z0-9]+", re.sub("['\N{RIGHT SINGLE QUOTATION MARK}]", "", sentence.lower()))
    return seed_of(*(word for word in words if word not in ("the", "a", "an")))


def named_place(name: str, categories: Mapping[str, str]) -> tuple[str | None, str]:
    """The thing that a name of the suite belongs to, or None on the table; and the thing's category or the place.

    Example:
        >>> named_place("wooden_cabinet_1_top_side", {"wooden_cabinet_1": "wooden_cabinet"})
        ('wooden_cabinet_1', 'wooden_cabinet top_side')
    """
    if name in categories:
        return name, categories[name]
    owners = [thing for thing in categories if name.startswith(f"{thing}_")]
    if not owners:
        return None, name
    thing = max(owners, key=len)
    return thing, f"{categories[thing]} {name[len(thing) + 1 :]}"


def of_categories(predicate: Predicate, categories: Mapping[str, str]) -> Predicate:
    """A predicate of categories and places instead of names."""
    return (predicate[0], *(named_place(name, categories)[1] for name in predicate[1:]))


def goal_hash(goal: Iterable[Predicate], categories: Mapping[str, str]) -> int:
    """Of a goal's predicates of categories, in any order."""
    return seed_of(*(" / ".join(p) for p in sorted(of_categories(predicate, categories) for predicate in goal)))


def task_hash(goal: Iterable[Predicate], categories: Mapping[str, str]) -> int:
    """Of a goal and the categories of all that is in its scene."""
    return seed_of(goal_hash(goal, categories), *sorted(categories.values()))


def _cells(
    arena: str,
    predicate: Predicate,
    categories: Mapping[str, str],
    points: Mapping[str, Point],
    shifts_m: tuple[float, ...],
) -> Iterator[int]:
    """Hashes of the cells in which the predicate's things stand, moved by every combination of the shifts."""
    things = [named_place(name, categories)[0] for name in predicate[1:]]
    numbers = [float(points[thing][axis]) for thing in things if thing is not None for axis in (0, 1)]
    named = (arena, *of_categories(predicate, categories))
    for moves in np.stack(np.meshgrid(*[shifts_m] * len(numbers)), -1).reshape(-1, len(numbers)):
        yield seed_of(*named, *np.floor((np.array(numbers) + moves) / CELL_M).astype(int).tolist())


class Problem(NamedTuple):
    """A BDDL file."""

    arena: str
    sentence: str
    goal: tuple[Predicate, ...]
    movable: dict[str, str]
    """{name: category}, in the order of the states."""
    fixtures: dict[str, str]
    """{name: category}, without the table."""
    regions: dict[str, Any]
    starts: dict[str, str]
    """{fixture or movable thing: where it begins}"""

    @property
    def categories(self) -> dict[str, str]:
        """{name: category} of movable things and fixtures."""
        return {**self.movable, **self.fixtures}

    @property
    def supports(self) -> dict[str, str]:
        """{thing: the thing on or in which it begins}, without those on the table."""
        owners = {name: named_place(place, self.categories)[0] for name, place in self.starts.items()}
        return {name: owner for name, owner in owners.items() if owner is not None}


def read_problem(path: Path) -> Problem:
    """Parse a BDDL file."""
    parsed = robosuite_parse_problem(str(path))
    movable = {name: kind for kind, names in parsed["objects"].items() for name in names}
    tables = {region["target"] for name, region in parsed["regions"].items() if region["ranges"]}
    fixtures = {name: kind for kind, names in parsed["fixtures"].items() for name in names if name not in tables}
    return Problem(
        arena=parsed["problem_name"],
        sentence=" ".join(parsed["language_instruction"]),
        goal=tuple(tuple(predicate) for predicate in parsed["goal_state"]),
        movable=movable,
        fixtures=fixtures,
        regions=parsed["regions"],
        starts={state[1]: state[2] for state in parsed["initial_state"] if len(state) == 3},
    )


def points_of(problem: Problem, state: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """{name: position, [2]} of a problem's things in one of its official states.

    Args:
        state: time, positions, speeds. Fixtures are not part of it: they stand in the middle of their regions.
    """
    first = 1 + _NUM_ARM
    points = {name: state[first + 7 * i :][:2] for i, name in enumerate(problem.movable)}
    for name in problem.fixtures:
        x0, y0, x1, y1 = problem.regions[problem.starts[name]]["ranges"][0]
        points[name] = np.array([(x0 + x1) / 2, (y0 + y1) / 2]) + ORIGINS.get(problem.arena, 0.0)
    return points


@cache
def held_out() -> HeldOut:
    """What LIBERO-PRO evaluates, from the installed package's files; takes about a second, once in a process."""
    tasks = [task for base in BASES for task in SUITES[base]]
    trained = {goal_hash(p.goal, p.categories) for p in (read_problem(bddl_path(task, TRAIN)) for task in tasks)}
    sentences, goals, scenes, placements = set[int](), set[int](), set[int](), set[int]()
    for task in tasks:
        for variation in VARIATIONS:
            if variation == TRAIN:
                continue
            problem = read_problem(bddl_path(task, variation))
            sentences.add(sentence_hash(problem.sentence))
            if (published := published_sentence(task, variation)) is not None:
                sentences.add(sentence_hash(published))
            scenes.add(task_hash(problem.goal, problem.categories))
            if variation == "task":
                goals.add(goal_hash(problem.goal, problem.categories))
            for state in official_states(task, variation):
                points = points_of(problem, state)
                for predicate in problem.goal:
                    placements.update(
                        _cells(problem.arena, predicate, problem.categories, points, (-MARGIN_M, MARGIN_M))
                    )
    return HeldOut(frozenset(sentences), frozenset(goals - trained), frozenset(scenes), frozenset(placements))
