"""Sizes of movable things, drawn per scene.

The suite makes each thing of the class that its BDDL file names as category. A thing of another size is of a class of
its own, made here and registered as the suite's own are, whose geometry is scaled before it is compiled.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any
from xml.etree import ElementTree

import numpy as np

from envs.suites.libero.wide.composition import declared
from envs.suites.libero.wide.held_out import Problem
from envs.suites.libero.wide.vocabulary import STAYING

from libero.libero.envs.base_object import OBJECTS_DICT  # isort: skip

_RESIZED = 0.4
"""Probability that a thing has another size."""
_PERCENT = (85, 115)
_HELD_BY_RIM = ("akita_black_bowl", "white_bowl")
_LEAST_PERCENT_HELD_BY_RIM, _MOST_PERCENT_HELD_BY_RIM = 80, 140
"""Of things that the hand holds by their rim, so that their width does not matter; LIBERO-PRO's bigger one has 150."""
_MOST_PERCENT_IN_DRAWER = 110
"""Of those over which a drawer closes."""
_OBJECTS = re.compile(r"\(:objects[^)]*\)")


def resized(
    categories: Mapping[str, str],
    rng: np.random.Generator,
    kept: Collection[str] = (),
    most_percent: int = _MOST_PERCENT_HELD_BY_RIM,
) -> dict[str, str]:
    """The categories of things, some of them in another size.

    Args:
        categories: {name: category} of the movable things of a scene.
        rng: draws which, and their sizes.
        kept: names of things of the suite's size.
        most_percent: greatest size of what is held by its rim.

    Returns:
        {name: category}, in the same order, of all of them.
    """
    drawn = {}
    for name, category in categories.items():
        low, high = (_LEAST_PERCENT_HELD_BY_RIM, most_percent) if category in _HELD_BY_RIM else _PERCENT
        changed, percent = rng.random() < _RESIZED, int(rng.integers(low, high + 1))
        drawn[name] = (
            scaled(category, percent) if changed and name not in kept and category not in STAYING else category
        )
    return drawn


def resized_in_place(problem: Problem, rng: np.random.Generator) -> dict[str, str]:
    """As `resized`, of a scene of the suite whose things begin where the suite puts them.

    What begins on or in another thing keeps its size, and so does that thing: they were chosen to fit.
    """
    kept = {name for pair in problem.supports.items() for name in pair}
    closes = any(predicate[0] == "close" for predicate in problem.goal)
    return resized(problem.movable, rng, kept, _MOST_PERCENT_IN_DRAWER if closes else _MOST_PERCENT_HELD_BY_RIM)


def scaled(category: str, percent: int) -> str:
    """The category of a thing of the suite in another size and of the same density; the suite can make it from now on.

    Args:
        category: one of the suite's.
        percent: of its width, depth and height.
    """
    if percent == 100:
        return category
    named, made = f"{category}_of_{percent}_percent", OBJECTS_DICT[category]
    if named in OBJECTS_DICT:
        return named

    def scaled_subtree(self: Any) -> ElementTree.Element:
        _scale(self.root, percent / 100)
        return made._get_object_subtree(self)

    OBJECTS_DICT[named] = type(made.__name__, (made,), {"_get_object_subtree": scaled_subtree})
    return named


def declare(bddl: str, categories: Mapping[str, str]) -> str:
    """A BDDL file's text with movable things of these categories.

    Args:
        categories: {name: category} of all movable things, in the file's order.
    """
    return _OBJECTS.sub(f"(:objects {declared(categories)})", bddl)


def _scale(root: ElementTree.Element, factor: float) -> None:
    """Scale the geometry of a thing's MJCF tree."""
    for element in root.iter():
        names = ("scale",) if element.tag == "mesh" else ("pos", "size")
        for name in names:
            numbers = element.get(name, "1 1 1" if name == "scale" else "")
            if numbers:
                element.set(name, " ".join(str(factor * float(number)) for number in numbers.split()))
