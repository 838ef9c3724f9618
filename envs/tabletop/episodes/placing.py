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

PER_EPISODE_MODEL_FIELDS = tuple(
    """body_pos body_gravcomp geom_rgba geom_size geom_rbound geom_aabb geom_matid light_dir light_diffuse
    cam_pos""".split()
)

_GRAIN_M = 1e-4
"""Half size of an object's unused shape: it is inside the other shape, where nothing touches it."""


Rows = dict[str, NDArray[Any]]
"""{field of MjData or MjModel: values [n, ...]}, or those of one episode, [...]."""


def initial_fields(scene: Scene, episodes: Sequence[Episode]) -> Rows:
    """qpos, ctrl and PER_EPISODE_MODEL_FIELDS of simulations in which these episodes begin."""
    defaults = {"qpos": scene.model.qpos0, "ctrl": np.zeros(scene.model.nu)}
    defaults |= {name: getattr(scene.model, name) for name in PER_EPISODE_MODEL_FIELDS}
    rows = {name: np.repeat(values[None], len(episodes), axis=0) for name, values in defaults.items()}
    for i, episode in enumerate(episodes):
        _place({name: values[i] for name, values in rows.items()}, scene, episode)
    return rows


def _place(row: Rows, scene: Scene, episode: Episode) -> None:
    _place_arm(row, scene, episode)
    _apply_look(row, scene, episode)
    if episode.kind == "objects":
        _place_objects(row, scene, episode)
        _hide(row, scene, (scene.cabinet_body, scene.panel_body, scene.dial_body))
    else:
        _place_fixtures(row, scene, episode)
        _park_objects(row, scene)
        _hide(row, scene, (*scene.object_bodies, *scene.bowl_bodies, *scene.zone_bodies))


def _place_arm(row: Rows, scene: Scene, episode: Episode) -> None:
    arm = scene.arm
    for name in ("qpos", "ctrl"):
        row[name][scene.joints] = np.array(arm.home_rad) + episode.pose.joint_noise_rad
        row[name][scene.fingers] = arm.finger_travel_m
    row["body_pos"][scene.base_body] = (0, 0, episode.pose.base_height_m)


def _apply_look(row: Rows, scene: Scene, episode: Episode) -> None:
    look = episode.look
    row["geom_matid"][scene.table_geom] = scene.materials[TABLE_MATERIALS.index(look.table_material)]
    row["geom_rgba"][scene.table_geom, :3] = look.table_rgb
    row["light_dir"][scene.light] = look.light_dir
    row["light_diffuse"][scene.light] = look.light_diffuse
    front = next(i for i, camera in zip(scene.camera_ids, CAMERAS, strict=True) if camera.name == "front")
    row["cam_pos"][front] = look.camera_pos_m
    for i, body in enumerate(scene.distractor_bodies):
        if i < len(look.distractor_xy_m):
            row["body_pos"][body] = (*look.distractor_xy_m[i], 0.0)
            _paint(row, scene.geoms_of[body], (look.distractor_grey[i],) * 3)
        else:
            _hide(row, scene, (body,))


def _place_objects(row: Rows, scene: Scene, episode: Episode) -> None:
    for i, (start, geoms) in enumerate(zip(scene.object_qpos, scene.object_geoms, strict=True)):
        yaw = episode.pose.object_yaw_rad[i]
        turn = (np.cos(yaw / 2), 0, 0, np.sin(yaw / 2))
        row["qpos"][start : start + 7] = (*episode.object_xy_m[i], OBJECT_HALF_HEIGHT_M, *turn)
        for shape, geom in geoms.items():
            if shape == episode.shapes[i]:
                _paint(row, (geom,), COLOURS[episode.colours[i]])
            else:
                row["geom_size"][geom] = _GRAIN_M
                row["geom_rbound"][geom] = _GRAIN_M
                row["geom_aabb"][geom, 3:] = _GRAIN_M
                row["geom_rgba"][geom, 3] = 0.0
    shown, hidden = scene.bowl_bodies, scene.zone_bodies
    if episode.receptacle == "zone":
        shown, hidden = hidden, shown
    for i, body in enumerate(shown):
        row["body_pos"][body] = (*episode.receptacle_xy_m[i], 0.0)
        _paint(row, scene.geoms_of[body], COLOURS[episode.receptacle_colours[i]])
    _hide(row, scene, hidden)


def _place_fixtures(row: Rows, scene: Scene, episode: Episode) -> None:
    for body, xy_m in (
        (scene.cabinet_body, episode.cabinet_xy_m),
        (scene.panel_body, episode.panel_xy_m),
        (scene.dial_body, episode.dial_xy_m),
    ):
        row["body_pos"][body] = (*xy_m, 0.0)
    for i, geoms in enumerate(scene.drawer_geoms):
        row["qpos"][scene.drawer_qpos[i]] = episode.drawer_open_m[i]
        _paint(row, geoms, COLOURS[episode.drawer_colours[i]])
    for i, geom in enumerate(scene.button_geoms):
        _paint(row, (geom,), COLOURS[episode.colours[i]])


def _park_objects(row: Rows, scene: Scene) -> None:
    for i, (body, start) in enumerate(zip(scene.object_bodies, scene.object_qpos, strict=True)):
        row["qpos"][start : start + 3] = parked_pos_m(f"object{i}")
        row["body_gravcomp"][body] = 1.0


def _paint(row: Rows, geoms: Sequence[int], rgb: Sequence[float]) -> None:
    row["geom_rgba"][list(geoms), :3] = rgb


def _hide(row: Rows, scene: Scene, bodies: Sequence[int]) -> None:
    for body in bodies:
        row["geom_rgba"][list(scene.geoms_of[body]), 3] = 0.0
