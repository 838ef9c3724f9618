"""What the kernels read and write: structs of arrays, and of a Scene's numbers.

Shape letters: N worlds, k actions of a chunk, S state dims, L localization dims.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import warp as wp

from envs.tabletop.episodes.reading import SampledEpisodes
from envs.tabletop.kernels.task_rules import mat23
from envs.tabletop.scene.scene import CAMERAS, Scene
from envs.types import CameraSpec

NUM_CAMERAS = len(CAMERAS)
_per_camera_int: Any = wp.types.vector(length=NUM_CAMERAS, dtype=int)
_per_camera: Any = wp.types.vector(length=NUM_CAMERAS, dtype=float)


@wp.struct
class Layout:
    """Where a Scene's things are in the simulator's arrays, and the cameras' fields of view."""

    tcp_site: int
    num_joints: int
    num_fingers: int
    object_qpos: wp.vec3i
    object_qvel: wp.vec3i
    drawer_qpos: wp.vec2i
    handle_geoms: wp.vec2i
    button_qpos: wp.vec3i
    button_geoms: wp.vec3i
    button_half_m: wp.vec3
    dial_qpos: int
    cameras: _per_camera_int
    half_width: _per_camera
    """Tangent of half the angle of view."""
    half_height: _per_camera


@wp.struct
class Fields:
    """What is read of the simulator; geom_rgba is also written."""

    qpos: wp.array2d[float]
    qvel: wp.array2d[float]
    site_xpos: wp.array2d[wp.vec3]
    site_xmat: wp.array2d[wp.mat33]
    geom_xpos: wp.array2d[wp.vec3]
    cam_xpos: wp.array2d[wp.vec3]
    cam_xmat: wp.array2d[wp.mat33]
    geom_rgba: wp.array2d[wp.vec4]


@wp.struct
class Episodes:
    """Of each world: what was sampled (`reading.SampledEpisodes`), the task, its step limit, and how far it is."""

    target: wp.array[wp.int64]
    goal: wp.array[wp.int64]
    start_pos: wp.array[wp.vec2]
    direction: wp.array[wp.vec2]
    drawer_start_m: wp.array[wp.vec2]
    receptacle_pos: wp.array[mat23]
    dial_pos: wp.array[wp.vec3]
    base_height_m: wp.array[float]
    task: wp.array[int]
    max_steps: wp.array[int]
    steps: wp.array[int]
    outcome: wp.array[int]


@wp.struct
class Seen:
    """The last look at each world."""

    state: wp.array2d[float]  # [N, S]
    localization: wp.array2d[float]  # [N, L]


@wp.struct
class Chunk:
    """The results of a chunk."""

    states: wp.array3d[float]  # [N, k, S]
    localization: wp.array3d[float]  # [N, k, L]
    reward: wp.array2d[float]  # [N, k]
    terms: wp.array3d[float]  # [3, N, k]: success, reach, progress
    weights: wp.vec3
    """Of the three terms."""
    step: wp.array[int]  # [N], actions of the chunk so far
    num_steps: wp.array[int]  # [N], of these, executed


def layout_of(scene: Scene, cameras: Sequence[CameraSpec]) -> Layout:
    """The layout of a scene, whose labels are in the frames of these cameras."""
    shown = {camera.name: camera for camera in cameras}
    made = Layout()
    made.tcp_site, made.dial_qpos = scene.tcp_site, scene.dial_qpos
    made.num_joints, made.num_fingers = len(scene.arm.joints), len(scene.arm.fingers)
    made.object_qpos, made.object_qvel = wp.vec3i(scene.object_qpos), wp.vec3i(scene.object_qvel)
    made.drawer_qpos = wp.vec2i(scene.drawer_qpos)
    made.handle_geoms = wp.vec2i([handle for handle, _ in scene.drawer_geoms])
    made.button_qpos, made.button_geoms = wp.vec3i(scene.button_qpos), wp.vec3i(scene.button_geoms)
    made.button_half_m = wp.vec3([float(scene.model.geom_size[geom, 1]) for geom in scene.button_geoms])
    heights = [math.tan(math.radians(scene.model.cam_fovy[camera]) / 2) for camera in scene.camera_ids]
    specs = [shown.get(usual.name, usual) for usual in CAMERAS]
    widths = [height * spec.width / spec.height for height, spec in zip(heights, specs, strict=True)]
    made.cameras = _per_camera_int(*scene.camera_ids)
    made.half_height, made.half_width = _per_camera(*heights), _per_camera(*widths)
    return made


def episodes_of(sampled: SampledEpisodes, counters: Mapping[str, Any]) -> Episodes:
    """Episodes that share the memory of these tensors, [N, ...].

    Args:
        sampled: of torch tensors.
        counters: task, max_steps, steps and outcome, int32 [N].
    """
    made = Episodes()
    dtypes = {"start_pos": wp.vec2, "direction": wp.vec2, "drawer_start_m": wp.vec2, "dial_pos": wp.vec3}
    dtypes |= {"receptacle_pos": mat23}
    for name in ("target", "goal", *dtypes, "base_height_m"):
        setattr(made, name, wp.from_torch(getattr(sampled, name), dtype=dtypes.get(name)))
    for name, values in counters.items():
        setattr(made, name, wp.from_torch(values))
    return made
