"""The initial simulator fields of an episode: poses, colours, light, camera, and the arm at rest.

They are computed on the host, as rows that a simulator copies at once.

Shape letters: n episodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.tabletop.episodes.episode import COLOURS, Episode
from envs.tabletop.scene.scene import CAMERAS, TABLE_MATERIALS, Scene
from envs.tabletop.scene.things import OBJECT_HALF_HEIGHT_M, parked_pos_m

PER_EPISODE_MODEL_FIELDS = (
    "body_pos",
    "body_gravcomp",
    "geom_rgba",
    "geom_size",
    "geom_rbound",
    "geom_aabb",
    "geom_matid",
    "light_dir",
    "light_diffuse",
    "cam_pos",
)

_GRAIN_M = 1e-4
"""Half size of an object's unused shape: it is inside the other shape, where nothing touches it."""


Rows = dict[str, NDArray[Any]]
"""{field of MjData or MjModel: values [n, ...]}."""


def beginnings(scene: Scene, episodes: Sequence[Episode]) -> Rows:
    """qpos, ctrl and PER_EPISODE_MODEL_FIELDS of simulations in which these episodes begin."""
    defaults = {"qpos": scene.model.qpos0, "ctrl": np.zeros(scene.model.nu)}
    defaults |= {name: getattr(scene.model, name) for name in PER_EPISODE_MODEL_FIELDS}
    rows = {name: np.repeat(values[None], len(episodes), axis=0) for name, values in defaults.items()}
    for i, episode in enumerate(episodes):
        _place(rows, scene, i, episode)
    return rows


def _place(rows: Rows, scene: Scene, index: int, episode: Episode) -> None:
    _place_arm(rows, scene, index, episode)
    _apply_look(rows, scene, index, episode)
    if episode.kind == "objects":
        _place_objects(rows, scene, index, episode)
        _hide(rows, scene, index, (scene.cabinet_body, scene.panel_body, scene.dial_body))
    else:
        _place_fixtures(rows, scene, index, episode)
        _park_objects(rows, scene, index)
        _hide(rows, scene, index, (*scene.object_bodies, *scene.bowl_bodies, *scene.zone_bodies))


def _place_arm(rows: Rows, scene: Scene, index: int, episode: Episode) -> None:
    arm = scene.arm
    for name in ("qpos", "ctrl"):
        rows[name][index, scene.joints] = np.array(arm.home_rad) + episode.pose.joint_noise_rad
        rows[name][index, scene.fingers] = arm.finger_travel_m
    rows["body_pos"][index, scene.base_body] = (0, 0, episode.pose.base_height_m)


def _apply_look(rows: Rows, scene: Scene, index: int, episode: Episode) -> None:
    look = episode.look
    rows["geom_matid"][index, scene.table_geom] = scene.materials[TABLE_MATERIALS.index(look.table_material)]
    rows["geom_rgba"][index, scene.table_geom, :3] = look.table_rgb
    rows["light_dir"][index, scene.light] = look.light_dir
    rows["light_diffuse"][index, scene.light] = look.light_diffuse
    front = next(i for i, camera in zip(scene.camera_ids, CAMERAS, strict=True) if camera.name == "front")
    rows["cam_pos"][index, front] = look.camera_pos_m
    for i, body in enumerate(scene.distractor_bodies):
        if i < len(look.distractor_xy_m):
            rows["body_pos"][index, body] = (*look.distractor_xy_m[i], 0.0)
            _paint(rows, index, scene.geoms_of[body], (look.distractor_grey[i],) * 3)
        else:
            _hide(rows, scene, index, (body,))


def _place_objects(rows: Rows, scene: Scene, index: int, episode: Episode) -> None:
    for i, (start, geoms) in enumerate(zip(scene.object_qpos, scene.object_geoms, strict=True)):
        yaw = episode.pose.object_yaw_rad[i]
        rows["qpos"][index, start : start + 7] = (
            *episode.object_xy_m[i],
            OBJECT_HALF_HEIGHT_M,
            np.cos(yaw / 2),
            0,
            0,
            np.sin(yaw / 2),
        )
        for shape, geom in geoms.items():
            if shape == episode.shapes[i]:
                _paint(rows, index, (geom,), COLOURS[episode.colours[i]])
            else:
                rows["geom_size"][index, geom] = _GRAIN_M
                rows["geom_rbound"][index, geom] = _GRAIN_M
                rows["geom_aabb"][index, geom, 3:] = _GRAIN_M
                rows["geom_rgba"][index, geom, 3] = 0.0
    shown, hidden = scene.bowl_bodies, scene.zone_bodies
    if episode.receptacle == "zone":
        shown, hidden = hidden, shown
    for i, body in enumerate(shown):
        rows["body_pos"][index, body] = (*episode.receptacle_xy_m[i], 0.0)
        _paint(rows, index, scene.geoms_of[body], COLOURS[episode.receptacle_colours[i]])
    _hide(rows, scene, index, hidden)


def _place_fixtures(rows: Rows, scene: Scene, index: int, episode: Episode) -> None:
    for body, xy_m in (
        (scene.cabinet_body, episode.cabinet_xy_m),
        (scene.panel_body, episode.panel_xy_m),
        (scene.dial_body, episode.dial_xy_m),
    ):
        rows["body_pos"][index, body] = (*xy_m, 0.0)
    for i, geoms in enumerate(scene.drawer_geoms):
        rows["qpos"][index, scene.drawer_qpos[i]] = episode.drawer_open_m[i]
        _paint(rows, index, geoms, COLOURS[episode.drawer_colours[i]])
    for i, geom in enumerate(scene.button_geoms):
        _paint(rows, index, (geom,), COLOURS[episode.colours[i]])


def _park_objects(rows: Rows, scene: Scene, index: int) -> None:
    for i, (body, start) in enumerate(zip(scene.object_bodies, scene.object_qpos, strict=True)):
        rows["qpos"][index, start : start + 3] = parked_pos_m(f"object{i}")
        rows["body_gravcomp"][index, body] = 1.0


def _paint(rows: Rows, index: int, geoms: Sequence[int], rgb: Sequence[float]) -> None:
    rows["geom_rgba"][index, list(geoms), :3] = rgb


def _hide(rows: Rows, scene: Scene, index: int, bodies: Sequence[int]) -> None:
    for body in bodies:
        rows["geom_rgba"][index, list(scene.geoms_of[body]), 3] = 0.0
