"""From the goal of a task to the skill that comes next.

A goal is the suite's: a conjunction of predicates. The expert works on one at a time: the first in order that does not
hold. What was true and became false, because a skill knocked it over or somebody else acted, is thereby done again.
"""

from __future__ import annotations

from collections.abc import Sequence

from envs.suites.libero.expert.dragging import drag
from envs.suites.libero.expert.drawers import close_drawer, open_drawer, opened
from envs.suites.libero.expert.grasps import grasp_candidates
from envs.suites.libero.expert.hinges import close_door, open_door, turn_knob
from envs.suites.libero.expert.insertion import box_of, insert
from envs.suites.libero.expert.motion import Arm, Steps
from envs.suites.libero.expert.transfer import transfer
from envs.suites.libero.expert.view import Goal, View

OPEN_ENOUGH_M = 0.12
"""A drawer this far out takes a thing."""
OPEN_M, OPEN_FOR_THINGS_M = 0.155, 0.13
ON_RAD, OFF_RAD = 0.55, -0.0


def ordered(goals: Sequence[Goal]) -> list[Goal]:
    """Goals in the order in which they can be reached.

    Knobs come first, while the hand has the stove to itself. A drawer or door closes before everything else, unless
    something has to go into it before; others open then. Of things that stand on each other the lower comes first.
    """
    filled = {goal[2] for goal in goals if goal[0] == "in"}
    filled |= {name.rsplit("_", 2)[0] for name in filled}
    moved = {goal[1]: goal for goal in goals if len(goal) == 3}

    def depth(goal: Goal) -> int:
        below = moved.get(goal[2])
        return 0 if below is None else 1 + depth(below)

    def rank(goal: Goal) -> tuple[int, int]:
        if len(goal) == 3:
            return 3, depth(goal)
        return {"turnon": 0, "turnoff": 0, "open": 2, "close": 4 if goal[1] in filled else 1}[goal[0]], 0

    return sorted(goals, key=rank)


def next_goal(view: View) -> Goal | None:
    """The first goal that does not hold; None when all do."""
    return next((goal for goal in ordered(view.scene.goal) if not view.holds(goal)), None)


def skill(arm: Arm, goal: Goal, attempt: int) -> Steps:
    """The motions that make a goal true from the state as it is."""
    view, kind = arm.view, goal[0]
    if kind in ("turnon", "turnoff"):
        return turn_knob(arm, _joint(view, goal[1]), ON_RAD if kind == "turnon" else OFF_RAD, attempt)
    if kind in ("open", "close"):
        joint = _joint(view, goal[1])
        if view.is_hinge(joint):
            return open_door(arm, joint) if kind == "open" else close_door(arm, joint)
        return open_drawer(arm, joint, OPEN_M, attempt) if kind == "open" else close_drawer(arm, joint, attempt)
    region = view.region(goal[2])
    if kind == "in" and region is not None:
        if region.joint_ids and opened(view, region.joint_ids[0]) < OPEN_ENOUGH_M:
            return open_drawer(arm, region.joint_ids[0], OPEN_FOR_THINGS_M, attempt)
        if not region.joint_ids and box_of(view, goal[2]) is not None:
            return insert(arm, goal, attempt)
    name = goal[1]
    if region is not None and region.parent is None and not view.in_hand(name) and not _graspable(arm, name):
        return drag(arm, goal, attempt)
    return transfer(arm, goal, attempt)


def _graspable(arm: Arm, name: str) -> bool:
    view = arm.view
    return bool(grasp_candidates(view.points(name), view.obstacles(name), view.centre_of_mass(name), view.hand_axes))


def _joint(view: View, name: str) -> int:
    """The hinge or slide of a region's part, or of a thing."""
    region = view.region(name)
    return region.joint_ids[0] if region is not None else view.thing(name).joint_ids[0]
