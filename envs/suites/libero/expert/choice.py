"""Which grasp to take a thing with, for where it has to go.

Grasps come from grasps.py. By reach.py the hand's way to each is tested against everything else, and its way to the
grasp and on to the place against the limits of the arm's joints.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from heapq import merge
from itertools import chain, islice

import numpy as np

from envs.suites.libero.expert.grasps import Grasp, grasp_candidates, lean_over, ranked, twins
from envs.suites.libero.expert.motion import UP, Arm
from envs.suites.libero.expert.placement import place_for
from envs.suites.libero.expert.reach import crowding
from envs.suites.libero.expert.view import Array, Goal

HOVER_M = 0.10
"""Distance from a grasp, backwards along the hand, at which it begins its approach."""
LIFT_M = 0.06
"""How far a thing is lifted after the grasp."""
CARRY_M = 0.15
"""Height above its place at which a thing comes."""
REACH_M, STRETCH_COST = 0.70, 15.0
"""Horizontal distance from the arm's base beyond which a grasp costs more, and how much more, per metre."""
LEAN_M, LEAN_RAD_PER_M, MOST_LEAN_RAD = 0.74, 6.0, 0.55
"""Distance beyond which the hand leans outward to reach further, how much per metre, and how much at most."""
OVERHUNG_RAD, ALONG_COST, UPRIGHT_COST = np.radians((32, 40, 25)), 3.0, 0.5
"""Leans for a place that is overhung, one per attempt; the cost of closing along that lean and of not leaning."""
UNDER_RAD, UNDER_COST = (0.5, 0.8), 1.5
"""By how much a hand may lean to reach under something, and what that costs."""
TOUCH_M, CROWD_COST = 0.004, 100.0
"""How deep something may reach into the hand's outline, and the cost per metre beyond."""
MARGIN_M = 0.012
"""Room that a hand which reaches under something has on its way to above the grasp."""
FULL_M = 0.02
"""Where something reaches deeper, nothing else has to be known."""
GOOD_COST = 3.0
"""Where the best grasp costs more, the hand also looks for one under what is in its way."""


def choose_grasp(arm: Arm, goal: Goal, attempt: int) -> Grasp | None:
    """The best grasp that was not tried yet, with the hand straight down or, where that is better, leaning.

    For a place under an overhang the hand leans out of its way, and at the end of the arm's reach it leans outward. It
    leans elsewhere if something is in the way.

    Args:
        arm: as it is now.
        goal: `on` or `in`.
        attempt: so many of the best grasps were tried.
    """
    choice = _Choice(arm, goal, attempt)
    found = ranked(choice.upright(), choice.trouble)
    best = next(found, None)
    found = chain([] if best is None else [best], found)
    if best is None or best.cost > GOOD_COST:
        under = ranked(choice.under(), partial(choice.trouble, margin=MARGIN_M))
        found = merge(found, under, key=lambda grasp: grasp.cost)
    return next(islice(found, attempt, None), best)


def overhung(arm: Arm, goal: Goal) -> Array | None:
    """The direction [3] out of a drawer that a thing goes into, whose cabinet overhangs it; None for other places."""
    region = arm.view.region(goal[2])
    if goal[0] != "in" or region is None or not region.joint_ids:
        return None
    return -arm.view.joint_line(region.joint_ids[0])[1]


class _Choice:
    """What the grasps of one thing cost for one goal."""

    def __init__(self, arm: Arm, goal: Goal, attempt: int) -> None:
        self._arm, self._view, self._attempt = arm, arm.view, attempt
        view, self._name = arm.view, goal[1]
        self._outward = overhung(arm, goal)
        place = place_for(view, goal)
        self._points, self._others = view.points(self._name), view.obstacles(self._name)
        self._floor = view.table_height(view.position(self._name))
        rise = place.support - float(self._points[:, 2].min())
        self._shift = np.array([*(place.xy - view.position(self._name)[:2]), rise])

    def upright(self) -> list[Grasp]:
        """With the hand straight down, or leaning as the place and the distance want it."""
        hand = self._view.hand_axes
        grasps = self._candidates(covered=False)
        found = [twin for grasp in grasps for twin in twins(self._leaning(grasp), hand)]
        if self._outward is not None:
            found += [replace(twin, cost=twin.cost + UPRIGHT_COST) for grasp in grasps for twin in twins(grasp, hand)]
        return found

    def under(self) -> Iterator[Grasp]:
        """With the hand leaning to one of eight sides."""
        for grasp in self._candidates(covered=True):
            for lean in UNDER_RAD:
                for angle in np.arange(8) * np.pi / 4:
                    side = lean * np.array([np.cos(angle), np.sin(angle), 0.0])
                    yield from twins(lean_over(grasp, side, UNDER_COST), self._view.hand_axes)

    def trouble(self, grasp: Grasp, margin: float = 0.0) -> float:
        """Cost of a hand that meets something on its way, or does not get through grasp and place."""
        point, axes = grasp.point, grasp.axes
        hover = point - HOVER_M * axes[:, 2]
        fast = [hover + 0.14 * UP, hover + 0.07 * UP, hover]
        deep = crowding(self._others, self._floor, [(hover + point) / 2, point], axes) - TOUCH_M
        crowd = max(0.0, deep, crowding(self._others, self._floor, fast, axes, margin))
        if crowd > FULL_M:
            return CROWD_COST * crowd
        at_place = point + self._shift + 0.01 * UP
        over_place = np.array([*at_place[:2], max(at_place[2], point[2]) + CARRY_M])
        return CROWD_COST * crowd + self._arm.miss_cost(axes, [hover, point, point + LIFT_M * UP, over_place, at_place])

    def _candidates(self, covered: bool) -> list[Grasp]:
        view = self._view
        com = view.centre_of_mass(self._name)
        return grasp_candidates(self._points, self._others, com, view.hand_axes, self._cost, covered=covered)

    def _furthest(self, point: Array) -> Array:
        """Of the hand's two positions, at the grasp and at the place, that further from the arm's base."""
        return max((point, point + self._shift), key=self._view.distance_from_base)

    def _cost(self, point: Array, closing: Array) -> float:
        """Of poses at the end of the arm's reach, and of fingers along the direction in which the hand leans."""
        stretch = STRETCH_COST * max(0.0, self._view.distance_from_base(self._furthest(point)) - REACH_M)
        return stretch + (0.0 if self._outward is None else ALONG_COST * abs(float(closing @ self._outward)))

    def _leaning(self, grasp: Grasp) -> Grasp:
        view = self._view
        if self._outward is not None:
            lean = OVERHUNG_RAD[self._attempt % 3] if abs(grasp.closing @ self._outward) < 0.5 else 0.0
            return lean_over(grasp, lean * self._outward)
        far = self._furthest(grasp.point)
        lean = np.clip(LEAN_RAD_PER_M * (view.distance_from_base(far) - LEAN_M), 0.0, MOST_LEAN_RAD)
        return lean_over(grasp, lean * view.from_base(far))
