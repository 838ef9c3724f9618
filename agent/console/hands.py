"""Manual controls of the page: teleoperation of the arm, and disturbance of objects on the table.

    keys    T takes over and gives back; I K forward and back, J L left and right, U O up and down, Z X turn the wrist,
            G opens and closes the gripper. A held key repeats.
    mouse   the gizmo on the hand, in the 3-D view; buttons for relative axes, sliders for absolute ones
    things  dragged with the mouse in the 3-D view, or pushed with buttons

Gamepads are not supported: viser does not support them, and this page has no JavaScript of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import viser

from agent.console.drive_session import DriveSession, Status
from agent.console.stage import Stage
from agent.console.table import LiveTable
from agent.robot.types import RobotSpec

_NUDGE = 0.5
"""Share of a whole action."""
_KEYS: dict[str, tuple[Any, Any]] = {
    "x": ("I", "K"),
    "y": ("J", "L"),
    "z": ("U", "O"),
    "rot_z": ("Z", "X"),
}
"""{name of a relative action dimension: keys that move it up and down}"""
_GRIPPER = "gripper"
_PUSHES = {"left": (0, 1, 0), "right": (0, -1, 0), "away": (1, 0, 0), "closer": (-1, 0, 0), "up": (0, 0, 2)}
"""Directions as seen from the arm; upwards is stronger, against the weight."""


def on_input(call: Callable[[], None]) -> Callable[[Any], Any]:
    """A callback for a person's input; changes by the page itself are ignored.

    A coroutine, which viser runs as soon as it has received the browser's message; `call` must return at once.
    """

    async def called(event: Any) -> None:
        if event.client_id is not None:
            call()

    return called


class Hands:
    """The folders "Take over" and "Disturb" of the page, and the keys."""

    def __init__(
        self, gui: viser.GuiApi, session: DriveSession, spec: RobotSpec, stage: Stage | None, table: LiveTable | None
    ) -> None:
        self._session = session
        self._spec = spec
        self._stage = stage
        self._table = table
        self._names = spec.world.action.names
        self._was_by_hand = False
        with gui.add_folder("Take over"):
            self._switch = gui.add_button("Take over", icon=viser.Icon.HAND_GRAB, color="blue", hint="T")
            self._switch.on_click(on_input(self._toggle))
            self._nudges = [self._add_nudges(gui, axis) for axis, a in enumerate(spec.axes) if a.relative]
            self._sliders = {axis: self._add_slider(gui, axis) for axis, a in enumerate(spec.axes) if not a.relative}
        self._add_keys(gui)
        self._thing: Any = None
        if table is not None:
            with gui.add_folder("Disturb"):
                self._note = gui.add_markdown("While the arm is driven, objects can be dragged in the 3-D view.")
                self._thing = gui.add_dropdown("Object", ("-",))
                self._push = gui.add_button_group("Push it", tuple(_PUSHES))
                self._push.on_click(on_input(self._push_thing))

    def show(self, status: Status) -> None:
        """Update the controls that are available."""
        wanted, driving = self._session.takeover.wanted, status.state == "driving"
        self._switch.disabled = not driving
        self._switch.label = "Give back" if wanted else "Take over"
        for entry in (*self._nudges, *self._sliders.values()):
            entry.visible = wanted and driving
        by_hand = driving and status.period is not None and status.period.by_hand
        if by_hand and not self._was_by_hand and status.period is not None:
            for axis, slider in self._sliders.items():
                slider.value = float(np.clip(status.period.sent[axis], -1.0, 1.0))
        self._was_by_hand = by_hand
        if self._stage is not None and self._thing is not None:
            things = self._stage.things or ("-",)
            if self._thing.options != things:
                self._thing.options = things
            self._thing.visible = self._push.visible = driving and things != ("-",)
            self._note.visible = not driving

    def _toggle(self) -> None:
        if self._session.takeover.wanted:
            self._session.takeover.give_back()
        elif self._session.busy:
            self._session.takeover.take()

    def _add_nudges(self, gui: viser.GuiApi, axis: int) -> Any:
        name = self._names[axis]
        keys = _KEYS.get(name)
        group = gui.add_button_group(name, ("\u2212", "+"), hint=None if keys is None else f"{keys[1]} and {keys[0]}")
        group.on_click(on_input(lambda: self._session.takeover.nudge(axis, _NUDGE if group.value == "+" else -_NUDGE)))
        return group

    def _add_slider(self, gui: viser.GuiApi, axis: int) -> Any:
        hint = "G" if self._names[axis] == _GRIPPER else None
        slider = gui.add_slider(self._names[axis], min=-1.0, max=1.0, step=0.01, initial_value=0.0, hint=hint)
        slider.on_update(on_input(lambda: self._session.takeover.command(axis, slider.value)))
        return slider

    def _add_keys(self, gui: viser.GuiApi) -> None:
        gui.add_command("Take over or give back", hotkey="T").on_trigger(on_input(self._toggle))
        for axis, name in enumerate(self._names):
            for key, sign in zip(_KEYS.get(name, ()) if self._spec.axes[axis].relative else (), (1, -1), strict=False):
                gui.add_command(f"{name} {'+' if sign > 0 else chr(0x2212)}", hotkey=key).on_trigger(
                    on_input(lambda axis=axis, sign=sign: self._session.takeover.nudge(axis, sign * _NUDGE))
                )
            if name == _GRIPPER and axis in self._sliders:
                gui.add_command("Open or close the gripper", hotkey="G").on_trigger(
                    on_input(lambda axis=axis: self._toggle_gripper(axis))
                )

    def _toggle_gripper(self, axis: int) -> None:
        slider = self._sliders[axis]
        if self._session.takeover.targets is not None:
            slider.value = -1.0 if slider.value > 0 else 1.0
            self._session.takeover.command(axis, slider.value)

    def _push_thing(self) -> None:
        if self._table is not None and self._thing.value != "-":
            self._table.push(self._thing.value, np.array(_PUSHES[self._push.value], np.float64))
