"""The tasks' rules on Warp: what `success`, `wrong`, `lost` and `places` of `tasks/` say, of one world.

A rule is a function View -> Judgement, named after its task; `judge` chooses by the task's index.
"""

from __future__ import annotations

from typing import Any

import warp as wp

from envs.tabletop import terms
from envs.tabletop.episodes.task import LOST_BELOW_M
from envs.tabletop.scene import things
from envs.tabletop.tasks import EVERY_TASK, close_drawer, lift, open_drawer, press_button, push, reach, slide, turn_dial

wp.set_module_options({"enable_backward": False})

mat23: Any = wp.types.matrix(shape=(2, 3), dtype=float)

TASK_INDEX = {name: wp.constant(i) for i, name in enumerate(EVERY_TASK)}
"""Index of each task, as `judge` takes it."""


@wp.struct
class View:
    """One world of `envs.tabletop.episodes.task.View`: metres and radians in the table frame; a row per thing."""

    target: int
    goal: int
    start_pos: wp.vec2
    direction: wp.vec2
    drawer_start_m: wp.vec2
    tcp_pos: wp.vec3
    opening_m: float
    object_pos: wp.mat33
    object_speed: wp.vec3
    receptacle_pos: mat23
    drawer_m: wp.vec2
    handle_pos: mat23
    button_m: wp.vec3
    button_pos: wp.mat33
    dial_rad: float
    dial_pos: wp.vec3


@wp.struct
class Judgement:
    """Of a state: the success flag, the reasons to end an episode, and the positions of target and goal."""

    success: bool
    wrong: bool
    lost: bool
    target_pos: wp.vec3
    goal_pos: wp.vec3


@wp.func
def _length_xy(offset: wp.vec3) -> float:
    return wp.length(wp.vec2(offset[0], offset[1]))


@wp.func
def _on_objects(view: View) -> Judgement:
    """What all tasks of objects share: the places, and whether the target fell."""
    made = Judgement()
    made.target_pos = view.object_pos[view.target]
    made.goal_pos = view.receptacle_pos[wp.min(view.goal, 1)]
    made.lost = made.target_pos[2] < wp.static(-LOST_BELOW_M)
    return made


@wp.func
def _resting_on(view: View, pos: wp.vec3, support: wp.vec3, radius_m: float) -> bool:
    offset = pos - support
    level = wp.abs(offset[2] - wp.static(things.OBJECT_HALF_HEIGHT_M)) < 0.008
    still = view.object_speed[view.target] < wp.static(terms.RESTING_SPEED_M_S)
    released = view.opening_m > wp.static(things.RELEASED_OPENING_M)
    return _length_xy(offset) < radius_m and level and still and released


@wp.func
def _reach(view: View) -> Judgement:
    made = _on_objects(view)
    top = wp.static(wp.vec3(reach.TOP_M))
    for i in range(wp.static(things.NUM_OBJECTS)):
        if wp.length(view.tcp_pos - view.object_pos[i] - top) < wp.static(reach.TOUCH_M):
            if i == view.target:
                made.success = True
            else:
                made.wrong = True
    made.goal_pos = made.target_pos + top
    return made


@wp.func
def _lift(view: View) -> Judgement:
    made = _on_objects(view)
    for i in range(wp.static(things.NUM_OBJECTS)):
        if view.object_pos[i][2] > wp.static(things.OBJECT_HALF_HEIGHT_M + lift.LIFT_M):
            if i == view.target:
                made.success = True
            else:
                made.wrong = True
    pos = made.target_pos
    made.goal_pos = wp.vec3(pos[0], pos[1], wp.static(lift.LIFT_M + things.CUBE_HALF_M))
    return made


@wp.func
def _pick_place(view: View) -> Judgement:
    made = _on_objects(view)
    offset = made.target_pos - made.goal_pos
    within = _length_xy(offset) < wp.static(things.BOWL_RADIUS_M - 0.008) and offset[2] < 0.05
    made.success = within and view.opening_m > wp.static(things.RELEASED_OPENING_M)
    return made


@wp.func
def _place(view: View) -> Judgement:
    made = _on_objects(view)
    made.success = _resting_on(view, made.target_pos, made.goal_pos, wp.static(things.ZONE_RADIUS_M - 0.01))
    return made


@wp.func
def _stack(view: View) -> Judgement:
    made = _on_objects(view)
    base = view.object_pos[view.goal]
    made.goal_pos = base + wp.vec3(0.0, 0.0, wp.static(things.OBJECT_HALF_HEIGHT_M))
    made.success = _resting_on(view, made.target_pos, made.goal_pos, 0.025)
    made.lost = made.lost or base[2] < wp.static(-LOST_BELOW_M)
    return made


@wp.func
def _push(view: View) -> Judgement:
    made = _on_objects(view)
    made.success = _length_xy(made.target_pos - made.goal_pos) < wp.static(push.IN_ZONE_M)
    return made


@wp.func
def _slide(view: View) -> Judgement:
    made = _on_objects(view)
    pos = made.target_pos
    moved = wp.vec2(pos[0], pos[1]) - view.start_pos
    along = wp.dot(moved, view.direction)
    astray = wp.abs(moved[1] * view.direction[0] - moved[0] * view.direction[1]) >= wp.static(slide.ASTRAY_M)
    made.success = along > wp.static(0.8 * slide.SLIDE_M) and not astray
    made.wrong = along < wp.static(-slide.ASTRAY_M) or astray
    goal = view.start_pos + wp.static(slide.SLIDE_M) * view.direction
    made.goal_pos = wp.vec3(goal[0], goal[1], pos[2])
    return made


@wp.func
def _at_drawer(view: View) -> Judgement:
    """The handle, and whether the other drawer has moved."""
    made = Judgement()
    made.target_pos = view.handle_pos[view.target]
    other = 1 - view.target
    made.wrong = wp.abs(view.drawer_m[other] - view.drawer_start_m[other]) > wp.static(open_drawer.OTHER_MOVED_M)
    return made


@wp.func
def _open_drawer(view: View) -> Judgement:
    made = _at_drawer(view)
    opening_m = view.drawer_m[view.target]
    made.success = opening_m > wp.static(open_drawer.OPEN_M)
    made.goal_pos = made.target_pos - wp.vec3(wp.static(things.DRAWER_TRAVEL_M) - opening_m, 0.0, 0.0)
    return made


@wp.func
def _close_drawer(view: View) -> Judgement:
    made = _at_drawer(view)
    opening_m = view.drawer_m[view.target]
    made.success = opening_m < wp.static(close_drawer.CLOSED_M)
    made.goal_pos = made.target_pos + wp.vec3(opening_m, 0.0, 0.0)
    return made


@wp.func
def _press_button(view: View) -> Judgement:
    made = Judgement()
    for i in range(wp.static(things.NUM_BUTTONS)):
        if view.button_m[i] > wp.static(press_button.PRESSED_M):
            if i == view.target:
                made.success = True
            else:
                made.wrong = True
    made.target_pos = view.button_pos[view.target]
    missing_m = wp.static(press_button.PRESSED_M) - view.button_m[view.target]
    made.goal_pos = made.target_pos - wp.vec3(0.0, 0.0, missing_m)
    return made


@wp.func
def _turn_dial(view: View) -> Judgement:
    made = Judgement()
    sense = 1.0 - 2.0 * float(view.goal)
    made.success = sense * view.dial_rad > wp.static(turn_dial.TURNED_RAD)
    made.wrong = sense * view.dial_rad < wp.static(-turn_dial.TURNED_RAD)
    angle = sense * wp.static(turn_dial.TURNED_RAD)
    made.target_pos = view.dial_pos
    made.goal_pos = view.dial_pos + wp.static(things.DIAL_BAR_HALF_M[0]) * wp.vec3(wp.cos(angle), wp.sin(angle), 0.0)
    return made


@wp.func
def judge(task: int, view: View) -> Judgement:
    """The rule of a task of EVERY_TASK, by its index."""
    if task == wp.static(TASK_INDEX["reach"]):
        return _reach(view)
    if task == wp.static(TASK_INDEX["lift"]):
        return _lift(view)
    if task == wp.static(TASK_INDEX["pick_place"]) or task == wp.static(TASK_INDEX["sort"]):
        return _pick_place(view)
    if task == wp.static(TASK_INDEX["place"]):
        return _place(view)
    if task == wp.static(TASK_INDEX["stack"]):
        return _stack(view)
    if task == wp.static(TASK_INDEX["push"]):
        return _push(view)
    if task == wp.static(TASK_INDEX["slide"]):
        return _slide(view)
    if task == wp.static(TASK_INDEX["open_drawer"]):
        return _open_drawer(view)
    if task == wp.static(TASK_INDEX["close_drawer"]):
        return _close_drawer(view)
    if task == wp.static(TASK_INDEX["turn_dial"]):
        return _turn_dial(view)
    return _press_button(view)  # and recall_button
