"""Reads the simulator's arrays into proprioception and the tasks' View.

Shape letters: N worlds, n of them, S state dims, O objects, R receptacles.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from envs.arm import ArmSpec
from envs.arrays import constant
from envs.tabletop.episodes.episode import DIRECTIONS, Episode
from envs.tabletop.episodes.task import View
from envs.tabletop.scene.scene import Scene
from envs.tabletop.scene.things import DIAL_BAR_HALF_M, NUM_DRAWERS, NUM_RECEPTACLES
from envs.types import Array, VectorSpec

Fields = Mapping[str, Array]
OnDevice = Callable[[NDArray[np.generic]], Array]

_NOWHERE_M = -9.0
"""Coordinate of receptacles that a table does not have."""


@dataclass(frozen=True, kw_only=True)
class SampledEpisodes:
    """Sampled values that tasks read, of N worlds on their device; written once per episode."""

    target: Array  # [N] int64
    goal: Array  # [N] int64
    start_pos: Array  # [N, 2]
    direction: Array  # [N, 2]
    drawer_start_m: Array  # [N, 2]
    receptacle_pos: Array  # [N, R, 3]
    dial_pos: Array  # [N, 3]
    base_height_m: Array  # [N]

    @classmethod
    def zeros(cls, num_worlds: int, on_device: OnDevice) -> SampledEpisodes:
        """Zeros for N worlds without an episode."""
        vectors = {"start_pos": (2,), "direction": (2,), "drawer_start_m": (NUM_DRAWERS,), "dial_pos": (3,)}
        shapes = vectors | {"receptacle_pos": (NUM_RECEPTACLES, 3)}
        dtypes = {"target": np.int64, "goal": np.int64}
        names = [field.name for field in fields(cls)]
        return cls(**{n: on_device(np.zeros((num_worlds, *shapes.get(n, ())), dtypes.get(n))) for n in names})

    def write(self, worlds: Array, episodes: Sequence[Episode], scene: Scene, on_device: OnDevice) -> None:
        """Set the values of these n worlds to those of the n episodes that begin there."""
        dial_top_m = scene.model.body_pos[scene.dial_knob_body, 2] + DIAL_BAR_HALF_M[2]
        rows = {
            "target": np.array([e.target for e in episodes], np.int64),
            "goal": np.array([e.goal for e in episodes], np.int64),
            "start_pos": np.array([e.object_xy_m[e.target] if len(e.object_xy_m) else (0.0, 0.0) for e in episodes]),
            "direction": np.array([DIRECTIONS[e.direction] for e in episodes]),
            "drawer_start_m": np.array([e.drawer_open_m or (0.0,) * NUM_DRAWERS for e in episodes]),
            "receptacle_pos": _receptacles(episodes),
            "dial_pos": np.array([(*e.dial_xy_m, dial_top_m) for e in episodes]),
            "base_height_m": np.array([e.pose.base_height_m for e in episodes]),
        }
        for name, values in rows.items():
            getattr(self, name)[worlds] = on_device(values)


_SEEN_BY_TASKS = tuple(field.name for field in fields(SampledEpisodes) if field.name != "base_height_m")


def state_spec(arm: ArmSpec) -> VectorSpec:
    """The spec of `read_state`. tcp is in the arm's base frame; tcp_rot: first two columns of its rotation matrix
    (Zhou et al. 2019).
    """
    joints = arm.joints
    return VectorSpec(
        names=(
            *(f"{joint.name}_pos" for joint in joints),
            *(f"tcp_{axis}" for axis in "xyz"),
            *(f"tcp_rot_{i}" for i in range(6)),
            "gripper_opening",
        ),
        units=(*("rad",) * len(joints), *("m",) * 3, *("1",) * 6, "m"),
        low=(*(joint.low_rad - 0.1 for joint in joints), *(-arm.reach_m,) * 3, *(-1.01,) * 6, -0.01),
        high=(*(joint.high_rad + 0.1 for joint in joints), *(arm.reach_m,) * 3, *(1.01,) * 6, arm.opening_m + 0.01),
        position=(len(joints), len(joints) + 1, len(joints) + 2),
    )


def read_state(field: Fields, scene: Scene, worlds: Array, base_height_m: Array) -> Array:
    """Proprioception, float32 [n, S]: joints, tool centre point in the arm's base frame, its rotation, the opening."""
    qpos = field["qpos"][worlds]
    xp = array_namespace(qpos)
    pos = field["site_xpos"][worlds, scene.tcp_site]
    above_base = pos[:, 2] - base_height_m
    mat = field["site_xmat"][worlds, scene.tcp_site].reshape(-1, 3, 3)
    rotation = mat[:, :, :2].mT.reshape(-1, 6)
    opening = xp.sum(qpos[:, scene.fingers], axis=1, keepdims=True)
    columns = (qpos[:, scene.joints], pos[:, :2], above_base[:, None], rotation, opening)
    return xp.astype(xp.concat(columns, axis=1), xp.float32)


def read_view(field: Fields, sampled: SampledEpisodes, scene: Scene, worlds: Array, step: Array) -> View:
    """The privileged view of these worlds, whose episodes are at `step`, [n]."""
    qpos = field["qpos"][worlds]
    xp = array_namespace(qpos)
    mat = field["site_xmat"][worlds, scene.tcp_site].reshape(-1, 3, 3)
    poses = xp.stack([qpos[:, start : start + 7] for start in scene.object_qpos], axis=1)  # [n, O, 7]
    qvel = field["qvel"][worlds]
    velocity = xp.stack([qvel[:, start : start + 3] for start in scene.object_qvel], axis=1)  # [n, O, 3]
    geoms = field["geom_xpos"][worlds]
    return View(
        arm=scene.arm,
        **{name: getattr(sampled, name)[worlds] for name in _SEEN_BY_TASKS},
        step=step,
        tcp_pos=field["site_xpos"][worlds, scene.tcp_site],
        tcp_yaw=xp.atan2(mat[:, 1, 0], mat[:, 0, 0]),
        tcp_tilt=xp.stack((-mat[:, 1, 2], mat[:, 0, 2]), axis=1),
        opening_m=xp.sum(qpos[:, scene.fingers], axis=1),
        object_pos=poses[:, :, :3],
        object_yaw=2 * xp.atan2(poses[:, :, 6], poses[:, :, 3]),
        object_speed=xp.linalg.vector_norm(velocity, axis=-1),
        drawer_m=qpos[:, list(scene.drawer_qpos)],
        handle_pos=geoms[:, [handle for handle, _ in scene.drawer_geoms]],
        button_m=qpos[:, list(scene.button_qpos)],
        button_pos=_tops(geoms[:, list(scene.button_geoms)], scene, scene.button_geoms),
        dial_rad=qpos[:, scene.dial_qpos],
    )


def _receptacles(episodes: Sequence[Episode]) -> NDArray[np.float64]:
    """[n, R, 3]."""
    nowhere = np.full((NUM_RECEPTACLES, 2), _NOWHERE_M)
    xy = [e.receptacle_xy_m if len(e.receptacle_xy_m) else nowhere for e in episodes]
    return np.concatenate((np.stack(xy), np.zeros((len(episodes), NUM_RECEPTACLES, 1))), axis=-1)


def _tops(centres: Array, scene: Scene, geoms: tuple[int, ...]) -> Array:
    """Centres of upright cylinders moved up by their half heights, [n, things, 3]."""
    return centres + constant(tuple((0.0, 0.0, float(scene.model.geom_size[g, 1])) for g in geoms), centres)
