"""How a sentence tells a thing from another of its kind: by its side, its neighbour, or what it stands on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from envs.suites.libero.wide.composition import Composition
from envs.suites.libero.wide.goals import Goal
from envs.suites.libero.wide.held_out import named_place
from envs.suites.libero.wide.layout import Layout, Pose
from envs.suites.libero.wide.vocabulary import NAMES, PLACES

_APART_M, _UNDER_M, _NEXT_M, _ELSEWHERE_M = 0.13, 0.06, 0.17, 0.24
"""How far apart twins are that are "left" and "right" or "front" and "back", how near things are that are on each
other, or "next to" each other, and how far the twin is then."""
_UNASKED = 0.3
"""Probability that a relation of a thing to be moved is said that is not needed."""


def relations(composition: Composition, goal: Goal, layout: Layout, rng: np.random.Generator) -> dict[str, str] | None:
    """{name: where it is} of what the goal names, see Speaker.say; None if nothing tells one of them from its twin."""
    categories = composition.categories
    named = {named_place(name, categories)[0] for predicate in goal for name in predicate[1:]}
    places = {named_place(name, categories)[1] for predicate in goal for name in predicate[1:]}
    moved = {predicate[1] for predicate in goal}
    said = {}
    for name in composition.movable:
        if name not in named:
            continue
        twins = [other for other in composition.movable if categories[other] == categories[name] and other != name]
        found = [*_sides(name, twins, layout.poses), *_neighbours(composition, name, twins, layout.poses)]
        found += _supports(composition, name, twins, layout)
        found = [
            words for words in found if not any(words.endswith(f" {PLACES[p][1][0]}") for p in places if p in PLACES)
        ]
        if twins and not found:
            return None
        if found and (twins or (name in moved and rng.random() < _UNASKED)):
            said[name] = found[int(rng.integers(len(found)))]
    return said


def _sides(name: str, twins: Sequence[str], poses: Mapping[str, Pose]) -> list[str]:
    """On which side of all its twins a thing is, as LIBERO's sentences name sides: the front is away from the arm."""
    away = [poses[name].pos - poses[twin].pos for twin in twins]
    return [
        word
        for axis, sign, word in ((1, 1, "right"), (1, -1, "left"), (0, 1, "front"), (0, -1, "back"))
        if twins and all(sign * float(way[axis]) > _APART_M for way in away)
    ]


def _neighbours(composition: Composition, name: str, twins: Sequence[str], poses: Mapping[str, Pose]) -> list[str]:
    """What a thing is next to, and none of its twins."""
    kinds = list(composition.movable.values())
    found = []
    for other, category in composition.movable.items():
        if other in (name, *twins) or kinds.count(category) > 1:
            continue
        there = poses[other].pos[:2]
        far = all(np.linalg.norm(there - poses[twin].pos[:2]) > _ELSEWHERE_M for twin in twins)
        if far and _UNDER_M < np.linalg.norm(there - poses[name].pos[:2]) < _NEXT_M:
            found += [f"{words} the {NAMES[category][0]}" for words in ("next to", "beside", "by")]
    return found


def _supports(composition: Composition, name: str, twins: Sequence[str], layout: Layout) -> list[str]:
    """What a thing stands on, and none of its twins."""

    def place(thing: str) -> str | None:
        return named_place(layout.on[thing], composition.categories)[1] if thing in layout.on else None

    here = place(name)
    if here is None or here in map(place, twins):
        return []
    prepositions, nouns = PLACES[here]
    return [f"{words} the {nouns[0]}" for words in prepositions if words != "onto"]
