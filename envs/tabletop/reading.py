"""Reads the batch's arrays into what tasks and policies speak of.

Shape letters: n worlds, S state dims, O objects, R receptacles.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from envs.tabletop.arm import NUM_JOINTS
from envs.tabletop.layout import Episode
from envs.tabletop.scene import DIAL_BAR_HALF_M, NUM_RECEPTACLES, Scene
from envs.tabletop.task import View

Fields = Mapping[str, NDArray[np.float64]]


def read_state(
    field: Fields, scene: Scene, worlds: NDArray[np.int64], base_height_m: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Proprioception, [n, S]: joints, tool centre point in the arm's base frame, its rotation, the opening."""
    qpos = field["qpos"][worlds]
    pos = field["site_xpos"][worlds, scene.tcp_site].copy()
    pos[:, 2] -= base_height_m
    mat = field["site_xmat"][worlds, scene.tcp_site].reshape(-1, 3, 3)
    rotation = mat[:, :, :2].transpose(0, 2, 1).reshape(-1, 6)
    opening = qpos[:, NUM_JOINTS : NUM_JOINTS + 2].sum(axis=1, keepdims=True)
    return np.concatenate((qpos[:, :NUM_JOINTS], pos, rotation, opening), axis=1).astype(np.float32)


def read_view(field: Fields, scene: Scene, worlds: NDArray[np.int64], episodes: tuple[Episode, ...]) -> View:
    """The privileged view of these worlds."""
    qpos = field["qpos"][worlds]
    mat = field["site_xmat"][worlds, scene.tcp_site].reshape(-1, 3, 3)
    starts = np.array(scene.object_qpos)
    quat = qpos[:, starts[:, None] + np.arange(3, 7)]  # [n, O, 4]
    speed = field["qvel"][worlds][:, np.array(scene.object_qvel)[:, None] + np.arange(3)]  # [n, O, 3]
    handles = np.array([geoms[0] for geoms in scene.drawer_geoms])
    return View(
        episodes=episodes,
        tcp_pos=field["site_xpos"][worlds, scene.tcp_site].copy(),
        tcp_yaw=np.arctan2(mat[:, 1, 0], mat[:, 0, 0]),
        tcp_tilt=np.column_stack((-mat[:, 1, 2], mat[:, 0, 2])),
        opening_m=qpos[:, NUM_JOINTS : NUM_JOINTS + 2].sum(axis=1),
        object_pos=qpos[:, starts[:, None] + np.arange(3)],
        object_yaw=2 * np.arctan2(quat[:, :, 3], quat[:, :, 0]),
        object_speed=np.linalg.norm(speed, axis=-1),
        receptacle_pos=_receptacles(episodes),
        drawer_m=qpos[:, list(scene.drawer_qpos)],
        handle_pos=field["geom_xpos"][worlds][:, handles],
        button_m=qpos[:, list(scene.button_qpos)],
        button_pos=_tops(field["geom_xpos"][worlds][:, list(scene.button_geoms)], scene, scene.button_geoms),
        dial_rad=qpos[:, scene.dial_qpos],
        dial_pos=_dials(episodes, scene),
    )


def _receptacles(episodes: tuple[Episode, ...]) -> NDArray[np.float64]:
    """[n, R, 3]; far away on tables that have none."""
    xy = [e.receptacle_xy_m if len(e.receptacle_xy_m) else np.full((NUM_RECEPTACLES, 2), -9.0) for e in episodes]
    return np.concatenate((np.stack(xy), np.zeros((len(episodes), NUM_RECEPTACLES, 1))), axis=-1)


def _tops(centres: NDArray[np.float64], scene: Scene, geoms: tuple[int, ...]) -> NDArray[np.float64]:
    """Centres of upright cylinders moved up by their half heights, [n, things, 3]."""
    return centres + scene.model.geom_size[list(geoms), 1][:, None] * np.array((0.0, 0.0, 1.0))


def _dials(episodes: tuple[Episode, ...], scene: Scene) -> NDArray[np.float64]:
    """Top centre of each dial's bar, [n, 3]."""
    height = scene.model.body_pos[scene.dial_knob_body, 2] + DIAL_BAR_HALF_M[2]
    return np.array([(*e.dial_xy_m, height) for e in episodes])
