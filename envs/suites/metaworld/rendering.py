"""Rendering in the simulator's process: our own OpenGL context, which holds the meshes of one task at a time.

Decimation changes only a copy of the model that is uploaded to OpenGL, so physics does not depend on the rendering.

Shape letters: V vertices, F faces, n clusters, H x W pixels.
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import mujoco
import numpy as np
from numpy.typing import NDArray

from envs.simulation.gl import gl_context
from envs.suites.metaworld.sensor import CAMERA, Sensor, View

_SMALL_MESH_FACES = 1000
"""Smaller meshes are not decimated: they are the tasks' objects, not the robot."""


class FrameRenderer:
    """Renders the views of a sensor; call `load` with a model before `render` with its data."""

    def __init__(self, sensor: Sensor) -> None:
        self._sensor = sensor
        self._width = max(view.width_px for view in sensor.views)
        self._height = max(view.height_px for view in sensor.views)
        self._gl: Any = None
        self._context: Any = None
        self._scene: Any = None
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED.value
        self._option = mujoco.MjvOption()
        self._decimation = Decimation(sensor.cell_m)

    def load(self, model: mujoco.MjModel) -> None:
        """Upload the model's meshes and textures to OpenGL, replacing those of the last model."""
        if self._gl is None:
            self._gl = gl_context(self._width, self._height)
            self._gl.make_current()
        if self._context is not None:
            self._context.free()
        uploaded = copy.copy(model)
        if self._sensor.cell_m:
            self._decimation.apply(uploaded)
        uploaded.vis.quality.offsamples = self._sensor.samples
        if not self._sensor.shadows:
            uploaded.vis.quality.shadowsize = 1  # else OpenGL allocates 64 MB for them
        uploaded.vis.global_.offwidth, uploaded.vis.global_.offheight = self._width, self._height
        self._context = mujoco.MjrContext(uploaded, mujoco.mjtFontScale.mjFONTSCALE_150.value)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._context)
        self._scene = mujoco.MjvScene(model, maxgeom=model.ngeom + model.nsite + 32)
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            self._scene.flags[flag] = self._sensor.shadows
        self._camera.fixedcamid = model.camera(CAMERA).id

    def render(self, model: mujoco.MjModel, data: mujoco.MjData, view: View, out: NDArray[np.uint8]) -> None:
        """Render one view to out, uint8 [H, W, 3] RGB; the kinematics of `data` must be up to date."""
        everything = mujoco.mjtCatBit.mjCAT_ALL.value
        mujoco.mjv_updateScene(model, data, self._option, None, self._camera, everything, self._scene)
        # OpenGL counts rows from the bottom and the frame is rotated by 180 degrees: its first column is our last.
        left = view.whole_px - view.left_px - view.width_px
        whole = mujoco.MjrRect(-left, -view.top_px, view.whole_px, view.whole_px)
        mujoco.mjr_render(whole, self._scene, self._context)
        pixels = np.empty_like(out)
        mujoco.mjr_readPixels(pixels, None, mujoco.MjrRect(0, 0, view.width_px, view.height_px), self._context)
        out[:] = pixels[:, ::-1]


class Decimation:
    """Large meshes with one vertex per cube: Rossignac and Borrel 1993, "Multi-resolution 3D approximations for
    rendering complex scenes". Vertices in a cube are replaced by their mean, and faces with two corners in one cube are
    removed.

    Results are cached per mesh: most meshes are the robot's, which every task has.
    """

    def __init__(self, cell_m: float) -> None:
        self._cell_m = cell_m
        self._known: dict[tuple[str, int, int], _Decimated] = {}

    def apply(self, model: mujoco.MjModel) -> None:
        """Decimate in place a model that is only used for rendering; textured meshes are unchanged."""
        plain_and_large = (model.mesh_facenum >= _SMALL_MESH_FACES) & (model.mesh_texcoordnum == 0)
        for mesh in np.flatnonzero(plain_and_large).tolist():
            num_vertices, num_faces = model.mesh_vertnum[mesh], model.mesh_facenum[mesh]
            vertices = model.mesh_vert[model.mesh_vertadr[mesh] :][:num_vertices]
            normals = model.mesh_normal[model.mesh_normaladr[mesh] :][: model.mesh_normalnum[mesh]]
            faces = model.mesh_face[model.mesh_faceadr[mesh] :][:num_faces]
            face_normals = model.mesh_facenormal[model.mesh_faceadr[mesh] :][:num_faces]
            key = (model.mesh(mesh).name, int(num_vertices), int(num_faces))
            if key not in self._known:
                self._known[key] = _decimated(vertices, normals, faces, face_normals, self._cell_m)
            small = self._known[key]
            count = model.mesh_facenum[mesh] = len(small.faces)
            vertices[:], normals[:], faces[:count], face_normals[:count] = small


class _Decimated(NamedTuple):
    vertices: NDArray[np.float32]  # [V, 3], most of them unused by faces
    normals: NDArray[np.float32]
    faces: NDArray[np.int64]  # [F, 3]
    face_normals: NDArray[np.int64]  # [F, 3], into normals


def _decimated(
    vertices: NDArray[np.float32],
    normals: NDArray[np.float32],
    faces: NDArray[np.int32],
    face_normals: NDArray[np.int32],
    cell_m: float,
) -> _Decimated:
    vertices, normals = vertices.copy(), normals.copy()
    cell, keeper = _clusters(vertices, cell_m)
    corners = keeper[cell[faces]]  # [F, 3]
    kept = _distinct(corners)
    _average(vertices, cell, keeper)
    if len(normals) != len(vertices):
        return _Decimated(vertices, normals, corners[kept], face_normals[kept].astype(np.int64))
    _average(normals, cell, keeper)
    normals[keeper] /= np.linalg.norm(normals[keeper], axis=1, keepdims=True) + 1e-9
    return _Decimated(vertices, normals, corners[kept], corners[kept])


def _clusters(vertices: NDArray[np.float32], cell_m: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Each vertex's cluster index, [V], and one vertex index per cluster, [n]."""
    cells, cell = np.unique(np.floor(vertices / cell_m).astype(np.int64), axis=0, return_inverse=True)
    cell = cell.reshape(-1)
    keeper = np.empty(len(cells), np.int64)
    keeper[cell] = np.arange(len(vertices))
    return cell, keeper


def _average(values: NDArray[np.float32], cell: NDArray[np.int64], keeper: NDArray[np.int64]) -> None:
    """Set every keeper to the mean of its cluster, in place; values: [V, 3]."""
    count = np.bincount(cell, minlength=len(keeper))
    values[keeper] = np.stack([np.bincount(cell, column, len(keeper)) / count for column in values.T], axis=1)


def _distinct(faces: NDArray[np.int64]) -> NDArray[np.int64]:
    """Indices of faces with three different corners, without duplicates."""
    a, b, c = faces.T
    whole = np.flatnonzero((a != b) & (b != c) & (a != c))
    _, first = np.unique(np.sort(faces[whole], axis=1), axis=0, return_index=True)
    return whole[np.sort(first)]
