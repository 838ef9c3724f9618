"""One kernel that looks at worlds: proprioception, labels, rewards, the buttons' signals and how episodes end.

It computes what `episodes/reading.py`, `scene/labels.py`, `TabletopWorld._reward` and `Running.judge` do.

Shape letters: N worlds, k actions of a chunk, S state dims, L localization dims.
"""

from __future__ import annotations

import warp as wp

from envs.tabletop.kernels.layout import NUM_CAMERAS, Chunk, Episodes, Fields, Layout, Seen
from envs.tabletop.kernels.task_rules import TASK_INDEX, Judgement, View, judge
from envs.tabletop.scene import things
from envs.tabletop.scene.labels import FARTHEST_M
from envs.tabletop.tasks import recall_button
from envs.types import OUTSIDE

wp.set_module_options({"enable_backward": False})

RUNNING, SUCCEEDED, BROKEN, WRONG, LOST, TRUNCATED, NONE = (wp.constant(i) for i in range(7))
"""State of a world's episode; NONE has not begun."""


@wp.func
def _view(layout: Layout, fields: Fields, episodes: Episodes, world: int) -> View:
    made = View()
    made.target = int(episodes.target[world])
    made.goal = int(episodes.goal[world])
    made.start_pos = episodes.start_pos[world]
    made.direction = episodes.direction[world]
    made.drawer_start_m = episodes.drawer_start_m[world]
    made.dial_pos = episodes.dial_pos[world]
    made.receptacle_pos = episodes.receptacle_pos[world]
    made.tcp_pos = fields.site_xpos[world, layout.tcp_site]
    for i in range(layout.num_fingers):
        made.opening_m = made.opening_m + fields.qpos[world, layout.num_joints + i]
    for i in range(wp.static(things.NUM_OBJECTS)):
        at = layout.object_qpos[i]
        made.object_pos[i] = wp.vec3(fields.qpos[world, at], fields.qpos[world, at + 1], fields.qpos[world, at + 2])
        dof = layout.object_qvel[i]
        velocity = wp.vec3(fields.qvel[world, dof], fields.qvel[world, dof + 1], fields.qvel[world, dof + 2])
        made.object_speed[i] = wp.length(velocity)
    for i in range(wp.static(things.NUM_DRAWERS)):
        made.drawer_m[i] = fields.qpos[world, layout.drawer_qpos[i]]
        made.handle_pos[i] = fields.geom_xpos[world, layout.handle_geoms[i]]
    for i in range(wp.static(things.NUM_BUTTONS)):
        made.button_m[i] = fields.qpos[world, layout.button_qpos[i]]
        centre = fields.geom_xpos[world, layout.button_geoms[i]]
        made.button_pos[i] = centre + wp.vec3(0.0, 0.0, layout.button_half_m[i])
    made.dial_rad = fields.qpos[world, layout.dial_qpos]
    return made


@wp.func
def _write_state(layout: Layout, fields: Fields, view: View, base_m: float, seen: Seen, world: int) -> None:
    for i in range(layout.num_joints):
        seen.state[world, i] = fields.qpos[world, i]
    first = layout.num_joints
    seen.state[world, first] = view.tcp_pos[0]
    seen.state[world, first + 1] = view.tcp_pos[1]
    seen.state[world, first + 2] = view.tcp_pos[2] - base_m
    mat = fields.site_xmat[world, layout.tcp_site]
    for i in range(3):
        seen.state[world, first + 3 + i] = mat[i, 0]
        seen.state[world, first + 6 + i] = mat[i, 1]
    seen.state[world, first + 9] = view.opening_m


@wp.func
def _in_frame(layout: Layout, fields: Fields, world: int, i: int, place: wp.vec3) -> wp.vec2:
    """The place in a camera's frame: u points right, v down, -1 and 1 at the edges."""
    camera = layout.cameras[i]
    axes = fields.cam_xmat[world, camera]  # columns: right, up, backward
    in_camera = wp.transpose(axes) * (place - fields.cam_xpos[world, camera])
    ahead = wp.max(-in_camera[2], 1e-6)
    u = in_camera[0] / ahead / layout.half_width[i]
    v = -in_camera[1] / ahead / layout.half_height[i]
    if in_camera[2] > 0.0:
        u, v = OUTSIDE, OUTSIDE
    return wp.vec2(wp.clamp(u, -OUTSIDE, OUTSIDE), wp.clamp(v, -OUTSIDE, OUTSIDE))


@wp.func
def _write_labels(layout: Layout, fields: Fields, judged: Judgement, base_m: float, seen: Seen, world: int) -> None:
    for thing in range(2):
        place = judged.target_pos
        if thing == 1:
            place = judged.goal_pos
        in_base = place - wp.vec3(0.0, 0.0, base_m)
        for axis in range(3):
            seen.localization[world, 3 * thing + axis] = wp.clamp(in_base[axis], -FARTHEST_M, FARTHEST_M)
        for i in range(NUM_CAMERAS):
            frame = _in_frame(layout, fields, world, i, place)
            column = 6 + 4 * i + 2 * thing
            seen.localization[world, column] = frame[0]
            seen.localization[world, column + 1] = frame[1]


@wp.func
def _signal(layout: Layout, fields: Fields, view: View, step: int, world: int) -> None:
    """The buttons' colours in recall_button."""
    for i in range(wp.static(things.NUM_BUTTONS)):
        shines = step >= wp.static(recall_button.GO_STEP)
        if step < wp.static(recall_button.CUE_STEPS) and i == view.target:
            shines = True
        rgb = wp.static(wp.vec3(recall_button.DARK))
        if shines:
            rgb = wp.static(wp.vec3(recall_button.SHINING))
        geom = layout.button_geoms[i]
        fields.geom_rgba[world, geom] = wp.vec4(rgb[0], rgb[1], rgb[2], fields.geom_rgba[world, geom][3])


@wp.func
def _look(layout: Layout, fields: Fields, episodes: Episodes, seen: Seen, world: int) -> Judgement:
    view = _view(layout, fields, episodes, world)
    judged = judge(episodes.task[world], view)
    base_m = episodes.base_height_m[world]
    _write_state(layout, fields, view, base_m, seen, world)
    _write_labels(layout, fields, judged, base_m, seen, world)
    if episodes.task[world] == wp.static(TASK_INDEX["recall_button"]):
        _signal(layout, fields, view, episodes.steps[world], world)
    return judged


@wp.func
def _near(a: wp.vec3, b: wp.vec3) -> float:
    """See `envs.tabletop.terms.near`."""
    return 1.0 - wp.tanh(5.0 * wp.length(a - b))


@wp.func
def _reward(chunk: Chunk, seen: Seen, judged: Judgement, first: int, world: int, i: int) -> None:
    tcp = wp.vec3(seen.state[world, first], seen.state[world, first + 1], seen.state[world, first + 2])
    target = wp.vec3(seen.localization[world, 0], seen.localization[world, 1], seen.localization[world, 2])
    goal = wp.vec3(seen.localization[world, 3], seen.localization[world, 4], seen.localization[world, 5])
    values = wp.vec3(wp.where(judged.success, 1.0, 0.0), _near(tcp, target), _near(target, goal))
    for term in range(3):
        chunk.terms[term, world, i] = values[term]
    chunk.reward[world, i] = wp.dot(chunk.weights, values)


@wp.func
def _outcome(judged: Judgement, broken: bool, steps: int, max_steps: int) -> int:
    if broken:
        return BROKEN
    if judged.success:
        return SUCCEEDED
    if judged.wrong:
        return WRONG
    if judged.lost:
        return LOST
    if steps >= max_steps:
        return TRUNCATED
    return RUNNING


@wp.kernel
def look_at(
    layout: Layout,
    fields: Fields,
    episodes: Episodes,
    seen: Seen,
    which: wp.array[wp.bool],  # [N]
) -> None:
    """Look at worlds whose episodes have just begun."""
    world = wp.tid()
    if which[world]:
        _look(layout, fields, episodes, seen, world)


@wp.kernel
def judge_action(
    layout: Layout,
    fields: Fields,
    episodes: Episodes,
    seen: Seen,
    chunk: Chunk,
    broken: wp.array[wp.bool],  # [N]
    moving: wp.array[wp.bool],  # [N], becomes False where the episode ends
) -> None:
    """After an action: count it, look, reward and end episodes; worlds that run none show what was seen last."""
    world = wp.tid()
    i = chunk.step[world]
    chunk.step[world] = i + 1
    chunk.reward[world, i] = 0.0
    for term in range(3):
        chunk.terms[term, world, i] = 0.0
    if moving[world]:
        steps = episodes.steps[world] + 1
        episodes.steps[world] = steps
        chunk.num_steps[world] = chunk.num_steps[world] + 1
        judged = _look(layout, fields, episodes, seen, world)
        if not broken[world]:
            _reward(chunk, seen, judged, layout.num_joints, world, i)
        outcome = _outcome(judged, broken[world], steps, episodes.max_steps[world])
        episodes.outcome[world] = outcome
        moving[world] = outcome == RUNNING
    for column in range(chunk.states.shape[2]):
        chunk.states[world, i, column] = seen.state[world, column]
    for column in range(chunk.localization.shape[2]):
        chunk.localization[world, i, column] = seen.localization[world, column]


@wp.kernel
def find_bad_actions(
    given: wp.array3d[float],  # [N, k, A]
    episodes: Episodes,
    is_bad: wp.array[int],  # [1], set to 1 if an action of a running world is not finite
) -> None:
    """The check before a chunk."""
    world = wp.tid()
    if episodes.outcome[world] == RUNNING:
        for i in range(given.shape[1]):
            for j in range(given.shape[2]):
                if not wp.isfinite(given[world, i, j]):
                    is_bad[0] = 1


@wp.kernel
def begin_chunk(
    given: wp.array3d[float],  # [N, k, A], clipped to [-1, 1]; what is not finite becomes 0
    episodes: Episodes,
    chunk: Chunk,
    is_bad: wp.array[int],  # [1]
    broken: wp.array[wp.bool],  # [N]
    moving: wp.array[wp.bool],  # [N]
) -> None:
    """Every running world moves, and none if an action is bad."""
    world = wp.tid()
    chunk.step[world] = 0
    chunk.num_steps[world] = 0
    broken[world] = False
    moving[world] = episodes.outcome[world] == RUNNING and is_bad[0] == 0
    for i in range(given.shape[1]):
        for j in range(given.shape[2]):
            value = given[world, i, j]
            given[world, i, j] = wp.where(wp.isfinite(value), wp.clamp(value, -1.0, 1.0), 0.0)
