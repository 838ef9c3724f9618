"""How much room things take, from the points of their collision geometry at rest."""

from __future__ import annotations

from typing import NamedTuple

import mujoco
import numpy as np
from numpy.typing import NDArray

from envs.suites.libero.expert.placement import support_height
from envs.suites.libero.expert.view import geom_points
from envs.suites.libero.scene import Scene

_AROUND_M = 0.04


class Shape(NamedTuple):
    """A thing in the pose in which the suite puts it down, without turning it about the vertical axis."""

    quat: NDArray[np.float64]  # [4]
    height: float
    """Of its body's origin where the suite puts it down, m."""
    low: NDArray[np.float64]  # [3], its smallest coordinates relative to its origin
    high: NDArray[np.float64]

    @property
    def radius_m(self) -> float:
        """Of the circle around its origin that holds it, seen from above."""
        reach = np.maximum(np.abs(self.low[:2]), np.abs(self.high[:2]))
        return float(reach.max())

    @property
    def height_m(self) -> float:
        return float(self.high[2] - self.low[2])


class Support(NamedTuple):
    """A flat place on a fixture that is not turned."""

    fixture: str
    offset: NDArray[np.float64]  # [2], of its middle from the fixture's origin
    height: float
    """Of what stands on it, above the fixture's origin."""


def supports_of(scene: Scene) -> dict[str, Support]:
    """{region: support} of stoves and of cabinets' tops; `data` must be as `shapes_of` leaves it."""
    supports = {}
    for name, region in scene.regions.items():
        fixture = region.parent or ""
        if fixture in scene.fixtures and name.endswith(("_cook_region", "_top_side")):
            origin = scene.data.xpos[scene.fixtures[fixture].body_id]
            middle = scene.data.site_xpos[region.site_id]
            top = support_height(points_of(scene, fixture), middle, _AROUND_M)
            if top is not None:
                supports[name] = Support(fixture, (middle - origin)[:2], float(top - origin[2]))
    return supports


def shapes_of(scene: Scene) -> dict[str, Shape]:
    """{name: shape} of all things, as placed by the suite's own samplers; changes `data`."""
    shapes = {}
    placed = {made.name: (np.array(pos), np.array(quat)) for pos, quat, made in scene.placements()}
    model, data = scene.model, scene.data
    for name, (pos, quat) in placed.items():
        scene.set_pose(name, pos, quat)
    mujoco.mj_kinematics(model, data)
    for name, (pos, quat) in placed.items():
        points = points_of(scene, name) - pos
        shapes[name] = Shape(quat, float(pos[2]), points.min(0), points.max(0))
    return shapes


def points_of(scene: Scene, name: str) -> NDArray[np.float64]:
    """Surface points of a thing's collision geoms in `data`, [P, 3]."""
    data = scene.data
    clouds = [
        geom_points(scene.model, geom) @ data.geom_xmat[geom].reshape(3, 3).T + data.geom_xpos[geom]
        for geom in (scene.objects | scene.fixtures)[name].geom_ids
    ]
    return np.concatenate(clouds)
