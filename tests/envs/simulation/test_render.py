"""Frames against a plain drawing by MuJoCo: everything computed anew, every geom drawn, one camera at a time."""

from __future__ import annotations

from collections.abc import Iterator

import mujoco
import numpy as np
import pytest
from numpy.typing import NDArray
from tables import begin, busy_actions, spec

from envs.simulation.gl import gl_context
from envs.simulation.render import BatchRenderer
from envs.tabletop.episodes.variations import VARIATIONS
from envs.tabletop.tasks import TASKS
from envs.tabletop.world import TabletopWorld
from envs.types import CameraSpec


def plain_frames(world: TabletopWorld) -> Iterator[tuple[int, str, NDArray[np.uint8]]]:
    """(world, camera, frame [H, W, 3]) of every world and camera."""
    batch, cameras = world.sim.batch, world.world_spec.cameras
    model = batch.get_model(0)
    model.vis.quality.offsamples = 0
    model.vis.global_.offwidth = model.vis.global_.offheight = 128
    gl = gl_context(128, 128)
    gl.make_current()
    context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
    mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, context)
    scene = mujoco.MjvScene(model, maxgeom=1000)
    scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
    everything = mujoco.mjtCatBit.mjCAT_ALL.value
    views = [(fixed_camera(model, c.name), mujoco.MjrRect(0, 0, c.width, c.height)) for c in cameras]
    for sim in range(world.num_envs):
        batch.get_model(sim, model)
        data = batch.get_data(sim)
        mujoco.mj_forward(model, data)
        mujoco.mjv_updateScene(model, data, mujoco.MjvOption(), None, views[0][0], everything, scene)
        for spec_, (camera, rect) in zip(cameras, views, strict=True):
            mujoco.mjv_updateCamera(model, data, camera, scene)
            mujoco.mjr_render(rect, scene, context)
            frame = np.empty((spec_.height, spec_.width, 3), np.uint8)
            mujoco.mjr_readPixels(frame, None, rect, context)
            yield sim, spec_.name, frame[::-1]
    context.free()
    gl.free()


def fixed_camera(model: mujoco.MjModel, name: str) -> mujoco.MjvCamera:
    camera = mujoco.MjvCamera()
    camera.type, camera.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, model.camera(name).id
    return camera


@pytest.mark.parametrize("num_steps", [0, 10])
def test_frames_equal_mujocos_own_rendering_bit_for_bit(num_steps: int) -> None:
    num_worlds = len(TASKS)
    world = TabletopWorld(num_worlds)
    seen = begin(world, [spec(task, 9, VARIATIONS[i % 5]) for i, task in enumerate(TASKS)])
    if num_steps:
        seen = world.step_chunk(busy_actions(num_worlds, num_steps)).observation
    for sim, camera, frame in plain_frames(world):
        np.testing.assert_array_equal(seen["frames"][camera][sim], frame, err_msg=f"{sim} {camera}")


def test_geoms_outside_the_view_are_culled_and_those_inside_are_not() -> None:
    model = mujoco.MjModel.from_xml_string(
        """<mujoco><worldbody>
        <camera name="eye" pos="0 0 2" fovy="60"/>
        <geom name="floor" type="plane" size="1 1 1" pos="0 0 -1"/>
        <geom name="centre" size=".1"/>
        <geom name="at the edge" size=".1" pos="1.2 0 0"/>
        <geom name="beside" size=".1" pos="1.5 0 0"/>
        <geom name="above the frame" size=".1" pos="0 1.5 0"/>
        <geom name="behind" size=".1" pos="0 0 4"/>
        </worldbody></mujoco>"""
    )
    renderer = BatchRenderer(mujoco.batch.Batch(model, 1, 1), {}, (CameraSpec(name="eye", height=32, width=32),))
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    (view,) = renderer._views.values()
    seen = view.sees(data)
    assert {model.geom(g).name for g in np.flatnonzero(seen)} == {"floor", "centre", "at the edge"}
    assert (renderer.render([0])["eye"] > 0).any()


def test_two_renderers_of_one_process_do_not_disturb_each_other() -> None:
    world = TabletopWorld(1)
    expected = begin(world, [spec("sort", 1)])["frames"]
    video = BatchRenderer(world.sim.batch, world.sim.model_field, (CameraSpec(name="front", height=200, width=300),))
    assert video.render([0])["front"].shape == (1, 200, 300, 3)
    again = world.sim.render([0])
    for camera, frames in expected.items():
        np.testing.assert_array_equal(again[camera], frames)
    video.close()
    np.testing.assert_array_equal(world.sim.render([0])["front"], expected["front"])


def test_an_unknown_camera_is_refused_by_name() -> None:
    world = TabletopWorld(1)
    with pytest.raises(KeyError, match="side"):
        BatchRenderer(world.sim.batch, world.sim.model_field, (CameraSpec(name="side", height=8, width=8),))
