"""The 3-D view: the table's geometry, the path of the chunk, drag handles on objects, and a gizmo on the hand.

mjviser shows MuJoCo's geometry in viser; the rest are viser's own elements.

Shape letters: K chunk size, A action dims, N segments.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import viser
import viser.transforms
from mjviser import ViserMujocoScene
from numpy.typing import NDArray

from agent.console.drive_session import DriveSession
from agent.console.table import LiveTable
from agent.robot.types import RobotSpec
from agent.robot.watch import Period
from envs.errors import UserError
from envs.tabletop.view import Poses, TableScene

_CAMERA_M, _LOOK_AT_M, _FIELD_OF_VIEW_RAD = (1.55, -0.95, 0.95), (0.28, 0.0, 0.24), 0.75
_GRIP_RADIUS_M = 0.034
_AHEAD_COLOURS = np.array([(255, 120, 0), (255, 225, 120)])
"""Colours of the chunk's first and last move."""


class Stage:
    """One table in the page's 3-D view. For the page's thread, except viser's callbacks."""

    def __init__(self, server: viser.ViserServer, table: LiveTable, session: DriveSession) -> None:
        """An empty view, until an episode begins."""
        self._server = server
        self._table = table
        self._session = session
        self._tool_axes = tool_axes(table.spec)
        self._scene: TableScene | None = None
        self._view: ViserMujocoScene | None = None
        self._grips: dict[str, viser.IcosphereHandle] = {}
        self._drag_offset = np.zeros(3)
        self._dragging_tool = False
        server.initial_camera.position, server.initial_camera.look_at = _CAMERA_M, _LOOK_AT_M
        server.initial_camera.fov = _FIELD_OF_VIEW_RAD
        server.scene.world_axes.visible = False
        self._ahead = server.scene.add_line_segments(
            "/chunk", np.zeros((1, 2, 3)), np.zeros((1, 2, 3), np.uint8), thickness=0.006, visible=False
        )
        self._gizmo = server.scene.add_transform_controls(
            "/hand", scale=0.14, disable_rotations=True, depth_test=False, visible=False
        )
        self._gizmo.on_update(self._tool_dragged)

    @property
    def things(self) -> tuple[str, ...]:
        """The movable objects on the table that is shown."""
        return tuple(self._grips)

    def update(self) -> None:
        """Show the current state."""
        if self._table.scene is None:
            return
        if self._table.scene is not self._scene:
            self._begin(self._table.scene)
        assert self._view is not None and self._scene is not None
        poses = self._table.poses()
        rotations = viser.transforms.SO3(poses.quat).as_matrix()
        with self._server.atomic():
            self._view.update_from_arrays(poses.pos_m[None], rotations[None])
            for name, grip in self._grips.items():
                grip.position = poses.pos_m[self._scene.things[name]]
            status = self._session.status
            self._show_ahead(poses, status.period if status.state == "driving" else None)
            self._show_gizmo(poses, self._scene)

    def _begin(self, scene: TableScene) -> None:
        """Build the geometry of an episode, unless it is unchanged."""
        same = self._scene is not None and scene.spec == self._scene.spec
        self._scene = scene
        if self._view is None:
            self._view = ViserMujocoScene(self._server, scene.model, num_envs=1)
            self._view.camera_tracking_enabled = False
            self._view.site_groups_visible = [False] * len(self._view.site_groups_visible)
        if not same:
            self._view.mj_model, self._view.mj_data = scene.model, scene.data
            self._view.rebuild_visual_handles()
            self._make_grips(scene)

    def _make_grips(self, scene: TableScene) -> None:
        """Almost transparent spheres as drag handles of the movable objects."""
        for grip in self._grips.values():
            grip.remove()
        self._grips = {}
        for name in scene.things:
            grip = self._server.scene.add_icosphere(
                f"/grips/{name}",
                _GRIP_RADIUS_M,
                (255, 255, 255),
                subdivisions=2,
                opacity=0.02,
                cast_shadow=False,
                receive_shadow=False,
            )
            grip.on_drag(self._dragger(name))
            self._grips[name] = grip

    def _dragger(self, name: str) -> Any:
        async def dragged(event: viser.SceneNodeDragEvent[Any]) -> None:
            if event.phase == "start":
                self._drag_offset = np.array(self._grips[name].position) - event.start_position
            target = None if event.phase == "end" else np.array(event.end_position) + self._drag_offset
            self._table.drag(name, target)

        return dragged

    def _show_ahead(self, poses: Poses, period: Period | None) -> None:
        """The remaining path of the newest chunk, from the hand's position."""
        moves = None if period is None or period.by_hand else _moves_ahead(period, self._table.spec, self._tool_axes)
        self._ahead.visible = moves is not None
        if moves is not None:
            places = poses.tool_m + np.concatenate((np.zeros((1, 3)), moves.cumsum(axis=0)))
            share = np.linspace(0, 1, len(places))[:, None]
            colours = ((1 - share) * _AHEAD_COLOURS[0] + share * _AHEAD_COLOURS[1]).astype(np.uint8)
            self._ahead.points = np.stack((places[:-1], places[1:]), axis=1)  # [N, 2, 3]
            self._ahead.colors = np.stack((colours[:-1], colours[1:]), axis=1)

    def _show_gizmo(self, poses: Poses, scene: TableScene) -> None:
        wanted = self._session.takeover.wanted and self._session.busy
        targets = self._session.takeover.targets
        if wanted and not self._dragging_tool:
            axes = list(self._tool_axes)
            self._gizmo.position = poses.tool_m if targets is None else scene.base_m + targets[axes]
        self._gizmo.visible = wanted

    async def _tool_dragged(self, event: viser.TransformControlsEvent) -> None:
        self._dragging_tool = event.phase != "end"
        if self._scene is not None:
            for axis, target in zip(self._tool_axes, self._gizmo.position - self._scene.base_m, strict=True):
                self._session.takeover.aim(axis, float(target))


def tool_axes(spec: RobotSpec) -> tuple[int, int, int]:
    """The axes that move the tool along x, y and z.

    Raises:
        UserError: the robot has no such axes.
    """
    states = [axis.state for axis in spec.axes]
    position = [spec.world.state.names[i] for i in spec.world.state.position]
    if not position or any(name not in states for name in position):
        shown = ", ".join(state for state in states if state is not None)
        raise UserError(
            f"{spec.name} has no axes that move the hand along x, y and z; its axes show: {shown}; give each an "
            "axis whose state is a position of the hand"
        )
    x, y, z = (states.index(name) for name in position)
    return x, y, z


def _moves_ahead(period: Period, spec: RobotSpec, axes: tuple[int, int, int]) -> NDArray[np.float64] | None:
    """The rest of the newest chunk, as displacements of the tool [N, 3] in metres; None if nothing is left."""
    if period.answer is None:
        return None
    left = period.answer.chunk[0][int(period.moves_since) :, list(axes)].astype(np.float64)
    return left * [spec.axes[i].scale for i in axes] if len(left) else None
