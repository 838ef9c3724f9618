"""Writes an episode's beginning into one simulation: poses, colours, light, camera, and the arm at rest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from envs.sim_cpu import CpuSim
from envs.tabletop.arm import FINGER_OPEN_M, HOME_QPOS_RAD, NUM_JOINTS
from envs.tabletop.layout import COLOURS, Episode
from envs.tabletop.scene import CAMERAS, OBJECT_HALF_HEIGHT_M, TABLE_MATERIALS, Scene, parked_pos_m

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
"""Half size of the shape that an object does not have: in the middle of the other one, where nothing touches it."""


def place(sim: CpuSim, scene: Scene, index: int, episode: Episode) -> None:
    """Make simulation `index`, just cleared, begin `episode`."""
    for name, values in sim.model_field.items():
        original = getattr(scene.model, name)
        values[index] = original
    _place_arm(sim, scene, index, episode)
    _apply_look(sim, scene, index, episode)
    if episode.kind == "objects":
        _place_objects(sim, scene, index, episode)
        _hide(sim, scene, index, (scene.cabinet_body, scene.panel_body, scene.dial_body))
    else:
        _place_fixtures(sim, scene, index, episode)
        _park_objects(sim, scene, index)
        _hide(sim, scene, index, (*scene.object_bodies, *scene.bowl_bodies, *scene.zone_bodies))


def _place_arm(sim: CpuSim, scene: Scene, index: int, episode: Episode) -> None:
    joints = np.array(HOME_QPOS_RAD) + episode.pose.joint_noise_rad
    fingers = (FINGER_OPEN_M, FINGER_OPEN_M)
    sim.field["qpos"][index, : NUM_JOINTS + 2] = (*joints, *fingers)
    sim.field["ctrl"][index] = (*joints, *fingers)
    sim.model_field["body_pos"][index, scene.base_body] = (0, 0, episode.pose.base_height_m)


def _apply_look(sim: CpuSim, scene: Scene, index: int, episode: Episode) -> None:
    look = episode.look
    sim.model_field["geom_matid"][index, scene.table_geom] = scene.materials[TABLE_MATERIALS.index(look.table_material)]
    sim.model_field["geom_rgba"][index, scene.table_geom, :3] = look.table_rgb
    sim.model_field["light_dir"][index, scene.light] = look.light_dir
    sim.model_field["light_diffuse"][index, scene.light] = look.light_diffuse
    front = next(i for i, camera in zip(scene.camera_ids, CAMERAS, strict=True) if camera.name == "front")
    sim.model_field["cam_pos"][index, front] = look.camera_pos_m
    for i, body in enumerate(scene.distractor_bodies):
        if i < len(look.distractor_xy_m):
            sim.model_field["body_pos"][index, body] = (*look.distractor_xy_m[i], 0.0)
            _paint(sim, index, scene.geoms_of[body], (look.distractor_grey[i],) * 3)
        else:
            _hide(sim, scene, index, (body,))


def _place_objects(sim: CpuSim, scene: Scene, index: int, episode: Episode) -> None:
    for i, (start, geoms) in enumerate(zip(scene.object_qpos, scene.object_geoms, strict=True)):
        yaw = episode.pose.object_yaw_rad[i]
        sim.field["qpos"][index, start : start + 7] = (
            *episode.object_xy_m[i],
            OBJECT_HALF_HEIGHT_M,
            np.cos(yaw / 2),
            0,
            0,
            np.sin(yaw / 2),
        )
        for shape, geom in geoms.items():
            if shape == episode.shapes[i]:
                _paint(sim, index, (geom,), COLOURS[episode.colours[i]])
            else:
                sim.model_field["geom_size"][index, geom] = _GRAIN_M
                sim.model_field["geom_rbound"][index, geom] = _GRAIN_M
                sim.model_field["geom_aabb"][index, geom, 3:] = _GRAIN_M
                sim.model_field["geom_rgba"][index, geom, 3] = 0.0
    shown, hidden = scene.bowl_bodies, scene.zone_bodies
    if episode.receptacle == "zone":
        shown, hidden = hidden, shown
    for i, body in enumerate(shown):
        sim.model_field["body_pos"][index, body] = (*episode.receptacle_xy_m[i], 0.0)
        _paint(sim, index, scene.geoms_of[body], COLOURS[episode.receptacle_colours[i]])
    _hide(sim, scene, index, hidden)


def _place_fixtures(sim: CpuSim, scene: Scene, index: int, episode: Episode) -> None:
    for body, xy_m in (
        (scene.cabinet_body, episode.cabinet_xy_m),
        (scene.panel_body, episode.panel_xy_m),
        (scene.dial_body, episode.dial_xy_m),
    ):
        sim.model_field["body_pos"][index, body] = (*xy_m, 0.0)
    for i, geoms in enumerate(scene.drawer_geoms):
        sim.field["qpos"][index, scene.drawer_qpos[i]] = episode.drawer_open_m[i]
        _paint(sim, index, geoms, COLOURS[episode.drawer_colours[i]])
    for i, geom in enumerate(scene.button_geoms):
        _paint(sim, index, (geom,), COLOURS[episode.colours[i]])


def _park_objects(sim: CpuSim, scene: Scene, index: int) -> None:
    for i, (body, start) in enumerate(zip(scene.object_bodies, scene.object_qpos, strict=True)):
        sim.field["qpos"][index, start : start + 3] = parked_pos_m(f"object{i}")
        sim.model_field["body_gravcomp"][index, body] = 1.0


def _paint(sim: CpuSim, index: int, geoms: Sequence[int], rgb: Sequence[float]) -> None:
    sim.model_field["geom_rgba"][index, list(geoms), :3] = rgb


def _hide(sim: CpuSim, scene: Scene, index: int, bodies: Sequence[int]) -> None:
    for body in bodies:
        sim.model_field["geom_rgba"][index, list(scene.geoms_of[body]), 3] = 0.0
