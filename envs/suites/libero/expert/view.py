"""What the scripted expert knows of a simulation: the hand, point clouds of collision geometry, joints and predicates.

The expert reasons about points, not about shapes: `points` samples the surface of every collision geom once, at most
SPACING_M apart, so that one rule works for boxes, cylinders and meshes. Nothing here is kept per object or task.

Shape letters: P points. All lengths in metres, all positions and axes in the world frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from envs.suites.libero.expert.reach import Pose, Reach

if TYPE_CHECKING:
    from envs.suites.libero.scene import Region, Thing
    from envs.suites.libero.simulation import Simulation

Array = NDArray[np.float64]
Goal = tuple[str, ...]
"""A predicate and its arguments, such as ("on", "bowl_1", "plate_1")."""

SPACING_M = 0.008
"""Largest distance of neighbouring sample points on a flat surface."""

_FINGERS = ("gripper0_leftfinger", "gripper0_rightfinger")


def box_surface(half_size: Array) -> Array:
    """Points of a box's surface, at most SPACING_M apart, [P, 3]."""
    axes = [np.linspace(-h, h, max(2, int(np.ceil(2 * h / SPACING_M)) + 1)) for h in half_size]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    return grid[(np.abs(np.abs(grid) - half_size) < 1e-9).any(1)]


def _round_surface(radii: Array) -> Array:
    """Points of a cylinder's surface with half-axes radii, [P, 3]; also stands for capsules and ellipsoids."""
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    ring = np.stack([np.cos(angles), np.sin(angles)], 1)
    disc = np.concatenate([ring * share for share in (1 / 3, 2 / 3, 1.0)] + [np.zeros((1, 2))])
    heights = np.linspace(-1, 1, max(2, int(np.ceil(2 * radii[2] / SPACING_M)) + 1))
    side = [np.column_stack([ring, np.full(len(ring), z)]) for z in heights]
    lids = [np.column_stack([disc, np.full(len(disc), z)]) for z in (-1.0, 1.0)]
    return np.concatenate(side + lids) * radii


def geom_points(model: Any, geom: int) -> Array:
    """Surface points of one geom in its own frame, [P, 3]; none of a plane."""
    kind, size = model.geom_type[geom], model.geom_size[geom]
    types = mujoco.mjtGeom
    if kind == types.mjGEOM_BOX:
        return box_surface(size)
    if kind == types.mjGEOM_CYLINDER:
        return _round_surface(np.array([size[0], size[0], size[1]]))
    if kind == types.mjGEOM_CAPSULE:
        return _round_surface(np.array([size[0], size[0], size[0] + size[1]]))
    if kind == types.mjGEOM_SPHERE:
        return _round_surface(np.repeat(size[0], 3))
    if kind == types.mjGEOM_ELLIPSOID:
        return _round_surface(size)
    if kind == types.mjGEOM_MESH:
        mesh = model.geom_dataid[geom]
        first, count = model.mesh_vertadr[mesh], model.mesh_vertnum[mesh]
        return np.asarray(model.mesh_vert[first : first + count], float)
    return np.zeros((0, 3))


class View:
    """One simulation, as the expert sees it now. Reads, never writes."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.scene = simulation.scene
        self.model, self.data = simulation.model, simulation.data
        self._things: dict[str, Thing] = {**self.scene.objects, **self.scene.fixtures}
        self._points = {g: geom_points(self.model, g) for thing in self._things.values() for g in thing.geom_ids}
        self._fingers = [self._subtree(self.model.body(name).id) for name in _FINGERS]
        control = simulation.controller
        joints = [self.model.joint(f"robot0_joint{i}").id for i in range(1, 8)]
        self._arm = control.arm_qpos
        self._reach = Reach(self.model, self.model.site("gripper0_grip_site").id, joints, control.rest_rad)
        self._base = self.model.body("robot0_link0").id
        of_things = set(self._points) | set(self.scene.robot_geom_ids)
        self._static = [g for g in range(self.model.ngeom) if self.scene.collides[g] and g not in of_things]

    @property
    def hand(self) -> Array:
        """Position of the grip site, between the fingertips, [3]."""
        return self.simulation.hand_pos_m

    @property
    def hand_axes(self) -> Array:
        """Rotation of the grip site, [3, 3]: columns are closing axis, side and approach."""
        return self.simulation.hand_axes

    @property
    def opening(self) -> float:
        """Distance between the fingers, 0 to 0.08."""
        fingers = self.simulation.fingers_m
        return float(fingers[0] - fingers[1])

    def miss(self, poses: Sequence[Pose]) -> float:
        """How far the hand would stay from the worst of several poses, taken one after the other, in metres."""
        return self._reach.miss(self.data.qpos[self._arm], poses)

    def distance_from_base(self, point: Array) -> float:
        """Horizontal distance of a point from the arm's first axis."""
        return float(np.linalg.norm((point - self.data.xpos[self._base])[:2]))

    def from_base(self, point: Array) -> Array:
        """Horizontal unit vector [3] from the arm's first axis to a point."""
        away = (point - self.data.xpos[self._base]) * [1.0, 1.0, 0.0]
        return away / np.linalg.norm(away)

    def thing(self, name: str) -> Thing:
        return self._things[name]

    def region(self, name: str) -> Region | None:
        """The region of that name; None if the name is a thing's."""
        return None if name in self._things else self.scene.regions[name]

    def position(self, name: str) -> Array:
        """Origin of a thing's body, [3]: what the suite's predicates test."""
        return self.data.xpos[self.thing(name).body_id].copy()

    def axes(self, name: str) -> Array:
        """Rotation of a thing's body, [3, 3]."""
        return self.data.xmat[self.thing(name).body_id].reshape(3, 3).copy()

    def centre_of_mass(self, name: str) -> Array:
        return self.data.subtree_com[self.thing(name).body_id].copy()

    def site(self, region: Region) -> tuple[Array, Array]:
        """Position [3] and rotation [3, 3] of a region."""
        return self.data.site_xpos[region.site_id].copy(), self.data.site_xmat[region.site_id].reshape(3, 3).copy()

    def cloud(self, geoms: Iterable[int]) -> Array:
        """Surface points of geoms, [P, 3]."""
        clouds = [
            self._points[g] @ self.data.geom_xmat[g].reshape(3, 3).T + self.data.geom_xpos[g]
            for g in geoms
            if g in self._points
        ]
        return np.concatenate(clouds) if clouds else np.zeros((0, 3))

    def points(self, name: str) -> Array:
        """Surface points of a thing, [P, 3]."""
        return self.cloud(self.thing(name).geom_ids)

    def obstacles(self, *excluded: str) -> Array:
        """Surface points of all things but those, [P, 3]; the table, the floor and the robot are none."""
        return self.cloud(g for name, thing in self._things.items() if name not in excluded for g in thing.geom_ids)

    def moving_geoms(self, joint: int) -> list[int]:
        """Collision geoms that a hinge or slide moves."""
        return [g for g in sorted(self._subtree(self.model.jnt_bodyid[joint])) if g in self._points]

    def joint(self, joint: int) -> float:
        """Position of a hinge (rad) or slide (m)."""
        return float(self.data.qpos[self.model.jnt_qposadr[joint]])

    def is_hinge(self, joint: int) -> bool:
        return bool(self.model.jnt_type[joint] == mujoco.mjtJoint.mjJNT_HINGE)

    def joint_range(self, joint: int) -> tuple[float, float]:
        low, high = self.model.jnt_range[joint]
        return float(low), float(high)

    def joint_line(self, joint: int) -> tuple[Array, Array]:
        """A point on a joint's axis [3] and the axis's direction [3]."""
        return self.data.xanchor[joint].copy(), self.data.xaxis[joint].copy()

    def table_height(self, xy: Array) -> float:
        """Height of the table, or else the floor, under a point."""
        heights = [0.0]
        for g in self._static:
            if self.model.geom_type[g] == mujoco.mjtGeom.mjGEOM_BOX:
                centre, half = self.data.geom_xpos[g], self._half_sizes(g)
                if (np.abs(xy[:2] - centre[:2]) <= half[:2]).all():
                    heights.append(float(centre[2] + half[2]))
        return max(heights)

    def _half_sizes(self, g: int) -> Array:
        """Of a box that stands upright, turned or laid on a side, along the world's axes, [3]."""
        return np.abs(self.data.geom_xmat[g].reshape(3, 3)) @ self.model.geom_size[g]

    def holds(self, goal: Goal) -> bool:
        """Whether a predicate of the suite is true now."""
        return self.simulation.holds(goal)

    def in_hand(self, name: str) -> bool:
        """Whether both fingers touch a thing."""
        geoms = set(self.thing(name).geom_ids)
        pairs = self.data.contact.geom[: self.data.ncon]
        touching = {int(b if a in geoms else a) for a, b in pairs if (a in geoms) != (b in geoms)}
        return all(touching & finger for finger in self._fingers)

    def held(self) -> str | None:
        """The movable thing that both fingers touch."""
        return next((name for name in self.scene.objects if self.in_hand(name)), None)

    def _subtree(self, body: int) -> set[int]:
        """Geoms of a body and of all below it."""
        bodies = {int(body)}
        for child in range(int(body) + 1, self.model.nbody):
            if self.model.body_parentid[child] in bodies:
                bodies.add(child)
        return {g for g in range(self.model.ngeom) if self.model.geom_bodyid[g] in bodies}
