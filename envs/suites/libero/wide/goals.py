"""What can be asked in a wide scene: goals of the suite's predicates that the scene's things afford."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import permutations

import numpy as np

from envs.suites.libero.wide.composition import Composition
from envs.suites.libero.wide.held_out import HeldOut, Predicate, named_place
from envs.suites.libero.wide.shapes import Shape
from envs.suites.libero.wide.vocabulary import NOT_CARRIED, RECEPTACLES, REGIONS

Goal = tuple[Predicate, ...]

SHARES = {
    "place": 12.0,
    "both": 1.5,
    "open": 2.0,
    "close": 1.5,
    "put away": 2.0,
    "turnon": 1.0,
    "heat": 1.0,
}
"""{kind of goal: how often it is asked, relative to the others that the scene affords}. To turn off a stove is
LIBERO-PRO's."""
_DRAWERS = tuple(f"{level}_region" for level in ("top", "middle", "bottom"))
_BOWLS = ("akita_black_bowl", "white_bowl")
_CABINET_DRAWERS = tuple(
    f"{cabinet} {drawer}" for cabinet in ("wooden_cabinet", "white_cabinet") for drawer in _DRAWERS
)
_MOST_RADIUS_M = {
    **dict.fromkeys(_BOWLS, 0.05),
    **dict.fromkeys(_CABINET_DRAWERS, 0.06),
    "plate": 0.075,
    "flat_stove cook_region": 0.12,
    "microwave heating_region": 0.075,
    **{f"desk_caddy {side}_contain_region": 0.07 for side in ("back", "front", "left", "right")},
}
_MOST_HEIGHT_M = dict.fromkeys((*_BOWLS, *_CABINET_DRAWERS), 0.08) | {"microwave heating_region": 0.12}
_ANY_RADIUS_M = 0.09
"""What does not fit in or on a place: larger ones."""
_ON_RACK = ("wine_bottle",)


def afforded(composition: Composition, shapes: Mapping[str, Shape], refused: HeldOut) -> dict[str, list[Goal]]:
    """{kind: goals} that a scene affords and LIBERO-PRO does not have; no kind is empty."""
    placed = list(_placed(composition, shapes))
    found = {
        kind: [goal for goal in _goals(kind, composition, placed) if not refused.has_task(goal, composition.categories)]
        for kind in SHARES
    }
    return {kind: goals for kind, goals in found.items() if goals}


def sample_goal(goals: Mapping[str, Sequence[Goal]], rng: np.random.Generator) -> Goal:
    """One of a scene's goals, see `afforded`."""
    shares = np.array([SHARES[kind] for kind in goals])
    chosen = list(goals.values())[int(rng.choice(len(shares), p=shares / shares.sum()))]
    return chosen[int(rng.integers(len(chosen)))]


def part_of(place: str, composition: Composition) -> str | None:
    """What has to be open for a thing to go into a place; None if nothing."""
    thing, kind = named_place(place, composition.categories)
    if kind.endswith("heating_region"):
        return thing
    return place if kind.endswith(_DRAWERS) and "cabinet" in kind else None


def _goals(kind: str, composition: Composition, placed: list[Predicate]) -> Iterator[Goal]:
    if kind == "place":
        yield from ((predicate,) for predicate in placed)
    elif kind == "both":
        yield from _both(composition, placed)
    elif kind == "put away":
        for predicate in placed:
            part = part_of(predicate[2], composition)
            if part is not None:
                yield predicate, ("close", part)
    elif kind == "heat":
        for predicate in placed:
            thing, place = named_place(predicate[2], composition.categories)
            if place == "flat_stove cook_region" and thing is not None:
                yield ("turnon", thing), predicate
    else:
        stoves = {name for name, category in composition.fixtures.items() if category == "flat_stove"}
        yield from (((kind, part),) for part in parts(composition) if (part in stoves) == (kind == "turnon"))


def _placed(composition: Composition, shapes: Mapping[str, Shape]) -> Iterator[Predicate]:
    """Everything that can be carried, in or on every place that it fits."""
    for place, kind in _places(composition):
        most_radius, most_height = _MOST_RADIUS_M.get(kind, _ANY_RADIUS_M), _MOST_HEIGHT_M.get(kind, np.inf)
        for name, category in composition.movable.items():
            shape = shapes[name]
            fits = shape.radius_m <= most_radius and shape.height_m <= most_height
            carried = category not in NOT_CARRIED and name not in composition.supporting
            stands = kind != "wine_rack top_region" or category in _ON_RACK
            if fits and carried and stands and not place.startswith(name):
                yield "in" if kind.endswith("contain_region") or part_of(place, composition) else "on", name, place


def _places(composition: Composition) -> Iterator[tuple[str, str]]:
    """(name, place) of everything that a thing can be put in or on."""
    for name, category in composition.categories.items():
        if category in RECEPTACLES and category not in REGIONS:
            yield name, category
        for region in REGIONS.get(category, ()):
            yield f"{name}_{region}", f"{category} {region}"


def _both(composition: Composition, placed: list[Predicate]) -> Iterator[Goal]:
    """Two things of different kinds into one basket or tray, or one each on two plates."""
    categories = composition.categories
    for first, second in permutations(placed, 2):
        (one, there), (other, elsewhere) = first[1:], second[1:]
        if categories[one] == categories[other]:
            continue
        kind, other_kind = (named_place(place, categories)[1] for place in (there, elsewhere))
        together = there == elsewhere and kind == "basket contain_region"
        apart = there != elsewhere and kind == other_kind == "plate" and one != elsewhere and other != there
        if (together and one < other) or (apart and there < elsewhere):
            yield first, second


def parts(composition: Composition) -> Iterator[str]:
    """Drawers, doors and knobs, as the suite's predicates name them."""
    for name, category in composition.fixtures.items():
        if category in ("microwave", "flat_stove"):
            yield name
        elif "cabinet" in category:
            yield from (f"{name}_{drawer}" for drawer in _DRAWERS)
