"""The page: viser's panels around the 3-D view, and the loop that keeps them up to date.

    left    cameras; the policy's expert usage, chunk and latency
    middle  the table (agent/console/stage.py), for a simulated robot
    right   controls: instruct, start, stop, choose an episode, take over, disturb, record

Callbacks only call the session, so a stop takes effect as soon as the browser's message is read. The thread of `run`
updates the page `rate_hz` times per second, panels of text and curves less often.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from threading import Event
from typing import Any

import cv2
import numpy as np
import viser
from numpy.typing import NDArray

from agent.console import panels
from agent.console.config import PageConfig
from agent.console.drive_session import DriveSession, Status
from agent.console.gate import refuse_strangers
from agent.console.hands import Hands, on_input
from agent.console.stage import Stage
from agent.console.table import LiveTable
from agent.robot.safety import broken_parts
from agent.robot.types import RobotSpec
from envs.types import EpisodeSpec

_LEFT_PX, _RIGHT_PX, _CAMERAS_PX = 420, 340, 396
_GAP_PX = 4
_PANELS_PER_S = 8.0
"""Update rate of text and curves."""
_RATE_OVER_S = 2.0
_CURVE_PX = 130


class Page:
    """One page, for any number of browsers."""

    def __init__(
        self,
        session: DriveSession,
        spec: RobotSpec,
        config: PageConfig,
        *,
        table: LiveTable | None = None,
        tasks: tuple[str, ...] = (),
        variations: tuple[str, ...] = (),
        instruction: str = "",
    ) -> None:
        """
        Args:
            table: a simulated robot, shown in 3-D, whose episode can be chosen and disturbed.
            tasks: to choose from, as variations, with a table.
            instruction: initial one; the episode's where empty.
        """
        self._session = session
        self._spec = spec
        self._config = config
        with redirect_stdout(StringIO()):  # viser's greeting, which has the address in a box
            server = viser.ViserServer(host=config.host, port=config.port, label="llamarm", verbose=False)
        self._server = server
        refuse_strangers(server, config.host)
        server.gui.configure_theme(show_share_button=False, show_logo=False, brand_color=(68, 119, 170))
        self._stage = Stage(server, table, session) if table is not None else None
        self._instructed = instruction
        self._shown_orders = -1
        self._update_times_s: list[float] = []
        self._panels_due_s = 0.0
        self._shown_reading: Any = None
        self._build_left(spec)
        self._build_right(table, tasks, variations)

    @property
    def address(self) -> str:
        """The page's URL."""
        host = "localhost" if self._config.host in ("0.0.0.0", "127.0.0.1") else self._config.host
        return f"http://{host}:{self._server.get_port()}"

    @property
    def rate_hz(self) -> float:
        """Updates per second, over the last two seconds."""
        return len(self._update_times_s) / _RATE_OVER_S

    def run(self, closing: Event) -> None:
        """Update the page until `closing` is set."""
        period_s = 1.0 / self._config.rate_hz
        while not closing.is_set():
            began_s = time.monotonic()
            self.update()
            closing.wait(max(0.0, period_s - (time.monotonic() - began_s)))

    def update(self) -> None:
        """Show the session's current state."""
        now_s, status = time.monotonic(), self._session.status
        self._update_times_s = [*(s for s in self._update_times_s if s > now_s - _RATE_OVER_S), now_s]
        if self._stage is not None:
            self._stage.update()
        if status.reading is not None and status.reading is not self._shown_reading:
            self._shown_reading = status.reading
            if not broken_parts(self._spec, status.reading):
                self._image.image = side_by_side([status.reading.frames[c.name] for c in self._spec.world.cameras])
        self._show_controls(status)
        if now_s >= self._panels_due_s:
            self._panels_due_s = now_s + 1.0 / _PANELS_PER_S
            self._show_panels(status)
        self._server.flush()

    def close(self) -> None:
        """End the server."""
        self._server.stop()

    # Display ----------------------------------------------------------------------------------------------------------

    def _build_left(self, spec: RobotSpec) -> None:
        gui = self._server.gui
        panel = gui.add_panel()
        with panel.add_tab("Policy", viser.Icon.BRAIN):
            black = [np.zeros((c.height, c.width, 3), np.uint8) for c in spec.world.cameras]
            label = "cameras: " + ", ".join(camera.name for camera in spec.world.cameras)
            self._image = gui.add_image(side_by_side(black), label=label, jpeg_quality=85)
            self._usage = gui.add_html("")
            scales: dict[str, Any] = {"x": {"time": False}, "y": {"auto": False, "range": (-1.1, 1.1)}}
            self._chunk = self._curves("the newest chunk, action by action", spec.world.action.names, scales)
            titles = ("inference", "delay of the period")
            self._latency = self._curves("latency in ms, over the seconds of the drive", titles, {"x": {"time": False}})
        panel.dock_left()
        panel.set_width(_LEFT_PX)

    def _curves(self, title: str, names: tuple[str, ...], scales: dict[str, Any]) -> viser.GuiUplotHandle:
        series: tuple[Any, ...] = (
            {"label": "at"},
            *(
                {"label": name, "stroke": panels.COLOURS[i % len(panels.COLOURS)], "width": 2}
                for i, name in enumerate(names)
            ),
        )
        data = (np.zeros(1),) * len(series)
        return self._server.gui.add_uplot(data, series, title=title, scales=scales, height=_CURVE_PX)

    def _show_panels(self, status: Status) -> None:
        self._status_html.content = panels.status_html(status, self._spec.world.control_dt_s, self.rate_hz)
        self._outcome_html.content = panels.outcome_html(status)
        periods, interventions = self._session.history()
        self._safety_html.content = panels.safety_html(interventions)
        answer = status.period.answer if status.period is not None else None
        usage = answer.expert_usage if answer is not None else None
        self._usage.content = panels.usage_html(None if usage is None else usage[0])
        if answer is None or not periods:
            return
        chunk = np.asarray(answer.chunk[0], np.float64)  # [K, A]
        self._chunk.data = (np.arange(1.0, len(chunk) + 1), *chunk.T)
        decisions = [p.answer.inference_s if p.answer is not None else np.nan for p in periods]
        self._latency.data = tuple(
            np.array(row)
            for row in ([p.time_s for p in periods], 1000.0 * np.array(decisions), [1000.0 * p.late_s for p in periods])
        )

    # Controls ---------------------------------------------------------------------------------------------------------

    def _build_right(self, table: LiveTable | None, tasks: tuple[str, ...], variations: tuple[str, ...]) -> None:
        gui = self._server.gui
        gui.main_panel.dock_right()
        gui.main_panel.set_width(_RIGHT_PX)
        self._status_html = gui.add_html("")
        self._instruction = gui.add_text("Instruction", self._instructed, multiline=True)
        self._start = gui.add_button("Start", color="green", icon=viser.Icon.PLAYER_PLAY)
        self._start.on_click(on_input(self._begin))
        self._stop = gui.add_button(
            "Stop", color="red", icon=viser.Icon.HAND_STOP, hint="Esc; the robot rests within a period"
        )
        self._stop.on_click(on_input(self._session.stop))
        gui.add_command("Stop", hotkey="escape").on_trigger(on_input(self._session.stop))
        self._table_inputs: tuple[Any, ...] = ()
        if table is not None:
            self._build_table(table, tasks, variations)
        self._hands = Hands(gui, self._session, self._spec, self._stage, table)
        with gui.add_folder("Record"):
            self._record = gui.add_checkbox("Record", False, hint=f"append the drive to {self._config.record}")
            words = {"Success": True, "No success": False}
            self._mark = gui.add_button_group("It was a", tuple(words), hint="Y and N; ends the drive")
            self._mark.on_click(on_input(lambda: self._session.mark(words[self._mark.value])))
            gui.add_command("Success", hotkey="Y").on_trigger(on_input(lambda: self._session.mark(True)))
            gui.add_command("No success", hotkey="N").on_trigger(on_input(lambda: self._session.mark(False)))
            self._outcome_html = gui.add_html("")
        with gui.add_folder("Safety filter"):
            self._safety_html = gui.add_html("")

    def _build_table(self, table: LiveTable, tasks: tuple[str, ...], variations: tuple[str, ...]) -> None:
        gui, episode = self._server.gui, table.episode
        with gui.add_folder("Table"):
            self._task = gui.add_dropdown("Task", tasks, initial_value=episode.task)
            self._variation = gui.add_dropdown("Variation", variations, initial_value=episode.variation)
            self._seed = gui.add_number("Seed", episode.seed, min=0, step=1)
            another = gui.add_button("Another table", icon=viser.Icon.REFRESH)
        self._table_inputs = (self._task, self._variation, self._seed, another)
        for entry in (self._task, self._variation, self._seed):
            entry.on_update(on_input(self._choose))

        def next_one() -> None:
            self._seed.value += 1
            self._choose()

        another.on_click(on_input(next_one))

    def _begin(self) -> None:
        record = self._config.record if self._record.value else None
        self._session.start(self._instruction.value.strip(), self._config.seconds, record)

    def _choose(self) -> None:
        if not self._session.busy:
            self._session.show(
                EpisodeSpec(
                    suite=self._spec.name,
                    task=self._task.value,
                    seed=int(self._seed.value),
                    variation=self._variation.value,
                )
            )

    def _show_controls(self, status: Status) -> None:
        """Update the controls that are available; viser sends only changes."""
        busy = self._session.busy
        if status.num_orders != self._shown_orders and not busy:
            self._shown_orders = status.num_orders
            if self._stage is not None and status.outcome is None and not self._instructed:
                self._instruction.value = status.instruction
            self._instructed = ""
        self._start.disabled = busy
        self._instruction.disabled = self._record.disabled = busy
        for entry in self._table_inputs:
            entry.disabled = busy
        self._mark.visible = busy
        self._hands.show(status)


def side_by_side(frames: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Cameras' frames [H, W, 3] in one image, scaled up by a whole factor or down to the panel's width."""
    total = sum(frame.shape[1] for frame in frames) + _GAP_PX * (len(frames) - 1)
    factor = _CAMERAS_PX / total
    factor = max(1, int(factor)) if factor >= 1 else factor
    method = cv2.INTER_NEAREST if factor >= 1 else cv2.INTER_AREA
    scaled = [cv2.resize(frame, None, fx=factor, fy=factor, interpolation=method) for frame in frames]
    height = max(frame.shape[0] for frame in scaled)
    gap = np.full((height, _GAP_PX, 3), 255, np.uint8)
    columns = [np.pad(d, ((0, height - len(d)), (0, 0), (0, 0)), constant_values=255) for d in scaled]
    return np.concatenate([part for column in columns for part in (column, gap)][:-1], axis=1, dtype=np.uint8)
