"""Whatever an instruction can name is wide enough to be seen: at least 8 pixels of a training frame."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import mujoco
import numpy as np
from numpy.typing import NDArray
from tables import BLIND, begin, busy_actions, every_task

from envs.tabletop.scene.scene import CAMERAS
from envs.tabletop.world import TabletopWorld
from envs.types import CameraSpec

MIN_WIDTH_PX = 8.0
SEEDS = range(20)
FRONT = CAMERAS[0]


def surface_points(model: mujoco.MjModel, data: mujoco.MjData, geom: int) -> NDArray[np.float64]:
    """Points of a box or an upright cylinder whose hull is the geom, [P, 3] in the world."""
    size = model.geom_size[geom]
    if model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_BOX:
        local = np.array(np.meshgrid(*[(-1.0, 1.0)] * 3)).reshape(3, -1).T * size
    else:
        assert model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_CYLINDER
        angle = np.linspace(0, 2 * np.pi, 64)
        ring = size[0] * np.column_stack((np.cos(angle), np.sin(angle)))
        local = np.concatenate([np.column_stack((ring, np.full(64, z))) for z in (-size[1], size[1])])
    return local @ data.geom_xmat[geom].reshape(3, 3).T + data.geom_xpos[geom]


def projected_px(
    model: mujoco.MjModel, data: mujoco.MjData, geoms: Sequence[int], spec: CameraSpec = CAMERAS[0]
) -> NDArray[np.float64]:
    """Columns and rows of a frame between which a thing lies, [[left, top], [right, bottom]]."""
    camera = model.camera(spec.name).id
    points = np.concatenate([surface_points(model, data, g) for g in geoms]) - data.cam_xpos[camera]
    right, up, backward = (points @ data.cam_xmat[camera].reshape(3, 3)).T
    focal_px = spec.height / 2 / np.tan(np.deg2rad(model.cam_fovy[camera]) / 2)
    pixels = np.column_stack((right, -up)) / -backward[:, None] * focal_px + spec.width / 2
    return np.stack((pixels.min(axis=0), pixels.max(axis=0)))


def nameable(world: TabletopWorld, row: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every thing on a table that has a name, and its geoms."""
    scene, episode = world.scene, world.episode(row)
    if episode.kind == "objects":
        yield from ((shape, (geoms[shape],)) for shape, geoms in zip(episode.shapes, scene.object_geoms, strict=True))
        bodies = scene.bowl_bodies if episode.receptacle == "bowl" else scene.zone_bodies
        yield from ((episode.receptacle, scene.geoms_of[body]) for body in bodies)
    else:
        yield from (("drawer", geoms) for geoms in scene.drawer_geoms)
        yield from (("handle", geoms[:1]) for geoms in scene.drawer_geoms)
        yield from (("button", (geom,)) for geom in scene.button_geoms)
        yield "dial", scene.geoms_of[scene.dial_body]


def test_every_nameable_thing_is_8_pixels_wide_and_within_the_front_frame() -> None:
    world = TabletopWorld(12, BLIND)
    widths: dict[str, float] = {}
    for seed in SEEDS:
        begin(world, every_task(seed))
        for row in range(12):
            model, data = world.sim.batch.get_model(row), world.sim.batch.get_data(row)
            mujoco.mj_forward(model, data)
            for name, geoms in nameable(world, row):
                low, high = projected_px(model, data, geoms)
                assert (low >= 0).all() and (high <= (FRONT.width, FRONT.height)).all(), (seed, row, name)
                widths[name] = min(widths.get(name, np.inf), float(high[0] - low[0]))
    assert set(widths) == {"cube", "cylinder", "bowl", "zone", "drawer", "handle", "button", "dial"}
    assert min(widths.values()) >= MIN_WIDTH_PX, widths


def test_the_projection_agrees_with_the_renderer() -> None:
    world = TabletopWorld(1)
    before = begin(world, every_task(3)[:1])["frames"]["front"][0].astype(int)
    model, data = world.sim.batch.get_model(0), world.sim.batch.get_data(0)
    mujoco.mj_forward(model, data)
    geom = world.scene.object_geoms[0][world.episode(0).shapes[0]]
    low, high = projected_px(model, data, (geom,))
    world.sim.model_field["geom_rgba"][0, geom, 3] = 0.0
    without = world.sim.render([0])["front"][0].astype(int)
    rows, columns = np.nonzero(np.abs(before - without).sum(axis=-1))
    drawn = np.array(((columns.min(), rows.min()), (columns.max() + 1, rows.max() + 1)))
    np.testing.assert_allclose(drawn, (low, high), atol=1.5)


def test_labels_point_at_the_target_in_every_camera_that_sees_it() -> None:
    world = TabletopWorld(12, BLIND)
    seen = dict.fromkeys((c.name for c in CAMERAS), 0)
    for seed in range(5):
        begin(world, every_task(seed))
        labels = world.step_chunk(busy_actions(12, 3, seed)).localization[:, -1]
        names = list(world.world_spec.localization.names)
        for row in (n for n in range(12) if world.episode(n).kind == "objects"):
            model, data = world.sim.batch.get_model(row), world.sim.batch.get_data(row)
            mujoco.mj_forward(model, data)
            for camera in CAMERAS:
                target = world.episode(row).target
                geom = world.scene.object_geoms[target][world.episode(row).shapes[target]]
                low, high = projected_px(model, data, (geom,), camera)
                u, v = (labels[row, names.index(f"target_{camera.name}_{axis}")] for axis in "uv")
                if (low > 0).all() and (high < (camera.width, camera.height)).all():
                    pixel = (np.array((u, v)) + 1) / 2 * (camera.width, camera.height)
                    assert (low < pixel).all() and (pixel < high).all(), (seed, row, camera.name)
                    seen[camera.name] += 1
    assert min(seen.values()) > 10, seen
