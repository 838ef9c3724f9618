"""Smaller meshes and textures for rendering: fewer faces and texels than pixels show anyway.

Only a copy of the model that is uploaded to OpenGL is changed, so physics does not depend on the rendering.

Shape letters: V vertices, F faces, n clusters, H x W texels.
"""

from __future__ import annotations

from typing import NamedTuple

import mujoco
import numpy as np
from numpy.typing import NDArray

_SMALL_MESH_FACES = 1000
"""Smaller meshes are not decimated: most of a scene's faces are in large ones."""


class Decimation:
    """Large meshes with one vertex per cube: Rossignac and Borrel 1993, "Multi-resolution 3D approximations for
    rendering complex scenes". Vertices in a cube are replaced by their mean, and faces with two corners in one cube are
    removed. The remaining faces of a textured mesh keep their texture coordinates.

    Results are cached until a model lacks the mesh: most meshes are the robot's, which every task has.
    """

    def __init__(self, cell_m: float, *, cell_share: float = 0.0, textured: bool = False) -> None:
        """
        Args:
            cell_m: side of the cubes,
            cell_share: but at least this share of the mesh's longest side.
            textured: also decimate textured meshes.
        """
        self._cell_m = cell_m
        self._cell_share = cell_share
        self._textured = textured
        self._known: dict[tuple[str, int, int], _Decimated] = {}

    def apply(self, model: mujoco.MjModel) -> None:
        """Decimate in place a model that is only used for rendering."""
        large = model.mesh_facenum >= _SMALL_MESH_FACES
        chosen = large if self._textured else large & (model.mesh_texcoordnum == 0)
        known, self._known = self._known, {}
        for mesh in np.flatnonzero(chosen).tolist():
            num_vertices, num_faces = model.mesh_vertnum[mesh], model.mesh_facenum[mesh]
            vertices = model.mesh_vert[model.mesh_vertadr[mesh] :][:num_vertices]
            normals = model.mesh_normal[model.mesh_normaladr[mesh] :][: model.mesh_normalnum[mesh]]
            of_mesh = slice(model.mesh_faceadr[mesh], model.mesh_faceadr[mesh] + num_faces)
            faces, face_normals = model.mesh_face[of_mesh], model.mesh_facenormal[of_mesh]
            texture_corners = model.mesh_facetexcoord[of_mesh]
            key = (model.mesh(mesh).name, int(num_vertices), int(num_faces))
            if key not in known:
                cell_m = max(self._cell_m, self._cell_share * float(np.ptp(vertices, axis=0).max()))
                known[key] = _decimated(vertices, normals, faces, face_normals, cell_m)
            small = self._known[key] = known[key]
            count = model.mesh_facenum[mesh] = len(small.faces)
            vertices[:], normals[:] = small.vertices, small.normals
            faces[:count], face_normals[:count] = small.faces, small.face_normals
            texture_corners[:count] = texture_corners[small.kept]


def shrink_textures(model: mujoco.MjModel, side_px: int) -> None:
    """Average textures down to about side_px per side, in place; the model is only used for rendering.

    Sides of a cube map are shrunk one by one: OpenGL gets six of them, even where the model has one for all.
    """
    flat = mujoco.mjtTexture.mjTEXTURE_2D.value
    for texture in range(model.ntex):
        height, width = int(model.tex_height[texture]), int(model.tex_width[texture])
        num_sides = 1 if model.tex_type[texture] == flat else max(height // width, 1)
        height //= num_sides
        step = max(max(height, width) // side_px, 1)
        first, channels = int(model.tex_adr[texture]), int(model.tex_nchannel[texture])
        rows, columns = min(step, height), min(step, width)
        new_height, new_width = height // rows, width // columns
        texels = model.tex_data[first : first + num_sides * height * width * channels]
        sides = texels.reshape(num_sides, height, width, channels)[:, : new_height * rows, : new_width * columns]
        blocks = sides.reshape(num_sides, new_height, rows, new_width, columns, channels)
        small = blocks.mean(axis=(2, 4), dtype=np.float32).astype(np.uint8)
        model.tex_height[texture], model.tex_width[texture] = num_sides * new_height, new_width
        model.tex_data[first : first + small.size] = small.ravel()


class _Decimated(NamedTuple):
    vertices: NDArray[np.float32]  # [V, 3], most of them unused by faces
    normals: NDArray[np.float32]
    faces: NDArray[np.int64]  # [F, 3]
    face_normals: NDArray[np.int64]  # [F, 3], into normals
    kept: NDArray[np.int64]  # [F], their indices before


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
        return _Decimated(vertices, normals, corners[kept], face_normals[kept].astype(np.int64), kept)
    _average(normals, cell, keeper)
    normals[keeper] /= np.linalg.norm(normals[keeper], axis=1, keepdims=True) + 1e-9
    return _Decimated(vertices, normals, corners[kept], corners[kept], kept)


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
