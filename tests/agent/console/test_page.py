"""The page in a headless Chromium, with a simulated arm in real time."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread

import numpy as np
import pytest
from line_arm import LineArm, always
from numpy.typing import NDArray
from viser.transforms import SO3

from agent.console.drive_session import DriveSession
from agent.console.page import Page, PageConfig
from agent.console.table import LiveTable, TableExpert
from agent.robot.clock import WallClock
from agent.robot.drive import Outcome
from benchmarks.browser import Tab, browser_tab, chromium, wait_until
from envs.tabletop.episodes.variations import VARIATIONS
from envs.tabletop.world import TabletopConfig, TabletopWorld
from envs.types import EpisodeSpec, Observation
from rollout.dataset.batches import TrainingData
from rollout.dataset.read import DatasetReader
from vla_model.types import ActionChunk

DT_S = 0.1
pytestmark = pytest.mark.skipif(
    chromium() is None, reason="no Chromium: sudo apt-get install -y chromium fonts-dejavu-core"
)


class WatchedTable(LiveTable):
    """Records the times of its actions and stops, in seconds of the epoch."""

    def __init__(self, world: TabletopWorld, episode: EpisodeSpec) -> None:
        super().__init__(world, episode)
        self.sent_s: list[float] = []
        self.stopped_s: list[float] = []

    def act(self, action: NDArray[np.float32]) -> NDArray[np.float32]:
        self.sent_s.append(time.time())
        return super().act(action)

    def stop(self) -> None:
        self.stopped_s.append(time.time())
        super().stop()


class WatchedSession(DriveSession):
    """Records how many actions its table had been sent when it was stopped."""

    num_sent_at_stop = 0

    def stop(self, reason: str = "on the page") -> None:
        assert isinstance(self._robot, WatchedTable)
        self.num_sent_at_stop = len(self._robot.sent_s)
        super().stop(reason)


class ToldExpert(TableExpert):
    """Records its instruction."""

    instruction: str = ""
    pace: float = 1.0
    """Share of its displacements: a small share, so that the task is not finished while the browser is slow."""

    def act(self, worlds: Sequence[int], observation: Observation) -> ActionChunk:
        chunk = super().act(worlds, observation)
        chunk.actions[..., :6] *= self.pace
        return chunk

    def begin(self, worlds: Sequence[int], instructions: tuple[str, ...], seeds: tuple[int, ...]) -> None:
        (self.instruction,) = instructions
        super().begin(worlds, instructions, seeds)


@dataclass
class Bench:
    """A table with its policy, and a browser tab that shows it."""

    table: WatchedTable
    expert: ToldExpert
    session: WatchedSession
    page: Page
    tab: Tab
    record: Path
    errors: list[str] = field(default_factory=list)

    def choose(self, task: str) -> None:
        self.session.show(EpisodeSpec(suite="tabletop", task=task, seed=1_000_000))

    def start(self, instruction: str) -> None:
        self.tab.locator("textarea:visible").fill(instruction)
        self.tab.get_by_role("button", name="Start").click()
        wait_until(self.tab, lambda: self.session.status.state == "driving")

    def pixel(self, place: NDArray[np.float64]) -> tuple[float, float]:
        """Where in the tab a place [3] of the scene is seen."""
        (client,) = self.page._server.get_clients().values()
        camera, box = client.camera, self.tab.locator("canvas").first.bounding_box()
        assert box is not None
        x, y, z = SO3(camera.wxyz).inverse().apply(place - camera.position)  # x is right, y down, z ahead
        focal = camera.image_height / 2 / np.tan(camera.fov / 2)
        per_pixel = box["height"] / camera.image_height
        return (
            float(box["x"] + per_pixel * (camera.image_width / 2 + focal * x / z)),
            float(box["y"] + per_pixel * (camera.image_height / 2 + focal * y / z)),
        )

    def drag(self, place: Callable[[], NDArray[np.float64]], up_m: float, least_m: float, above_m: float = 0.0) -> None:
        """The mouse takes what is `above_m` over a place, moves it up and releases it when the place has moved
        more than `least_m`. On a busy machine the page may not yet show there what is to be dragged, and turns the view
        instead: it is turned back, and the drag repeated from where the place is then, with longer waits.
        """
        mouse = self.tab.mouse
        (client,) = self.page._server.get_clients().values()
        position, look_at = client.camera.position, client.camera.look_at
        for attempt in range(1, 7):
            before = place()
            a, b = (
                np.array(self.pixel(before + np.array((0.0, 0.0, height_m)))) for height_m in (above_m, above_m + up_m)
            )
            mouse.move(*a.tolist())
            self.wait_for_frame(after_s=1.0 * attempt)
            mouse.down()
            for share in np.linspace(0.1, 1.0, 10):
                mouse.move(*(a + share * (b - a)).tolist())
                self.tab.wait_for_timeout(50 * attempt)
            try:
                wait_until(self.tab, lambda z_m=before[2] + least_m: bool(place()[2] > z_m), patience_s=5.0 * attempt)
            except TimeoutError:
                mouse.up()
                client.camera.position, client.camera.look_at = position, look_at
                self.wait_for_frame(after_s=1.0 * attempt)
            else:
                mouse.up()
                return
        raise TimeoutError(f"nothing was dragged up by {up_m} m from {place()}")

    def wait_for_frame(self, after_s: float) -> None:
        """Wait so long, and until the page has drawn a frame that it began afterwards."""
        self.tab.wait_for_timeout(1000 * after_s)
        self.tab.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def end(self) -> Outcome:
        wait_until(self.tab, lambda: not self.session.busy and self.session.status.state == "idle")
        assert self.session.status.trouble is None
        assert self.session.status.outcome is not None
        return self.session.status.outcome


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    world = TabletopWorld(1, TabletopConfig(max_steps=3000))
    table = WatchedTable(world, EpisodeSpec(suite="tabletop", task="reach", seed=1_000_000))
    expert, record = ToldExpert(table), tmp_path_factory.mktemp("page") / "drives"
    session = WatchedSession(expert, table, close=world.close)
    session.show(table.episode)
    config = PageConfig(port=0, record=record, rate_hz=20.0)
    page = Page(session, table.spec, config, table=table, tasks=world.tasks, variations=VARIATIONS)
    ended = Event()
    thread = Thread(target=page.run, args=(ended,))
    thread.start()
    try:
        with browser_tab(page.address, 1100, 700) as tab:
            found = Bench(table, expert, session, page, tab, record)
            tab.on("pageerror", lambda error: found.errors.append(str(error)))
            tab.locator(".llamarm-state", has_text="At rest").wait_for()
            yield found
    finally:
        ended.set()
        thread.join()
        page.close()
        session.close()


def test_the_policy_gets_the_typed_instruction_and_the_task_succeeds(bench: Bench) -> None:
    bench.choose("reach")
    bench.start("touch it, please")
    outcome = bench.end()
    assert bench.expert.instruction == outcome.instruction == "touch it, please"
    assert (outcome.success, outcome.ended) == (True, "success")
    bench.tab.locator(".llamarm-state", has_text=re.compile("^Success$")).wait_for()
    assert bench.errors == []


def test_stop_rests_the_arm_before_another_period(bench: Bench) -> None:
    """`benchmarks.console` measures the time since the click, which is the browser's too."""
    bench.expert.pace = 0.05
    bench.choose("stack")
    bench.start("stack it")
    bench.table.stopped_s.clear()
    bench.tab.get_by_role("button", name="Stop").click()
    assert bench.end().ended == "stopped: on the page"
    bench.expert.pace = 1.0
    assert bench.table.sent_s[-1] < bench.table.stopped_s[0], "nothing is sent after it"
    assert len(bench.table.sent_s) <= bench.session.num_sent_at_stop + 1, "at most the action that was under way"


def test_a_takeover_by_keyboard_is_marked_and_can_be_trained_on(bench: Bench) -> None:
    bench.choose("lift")
    bench.tab.get_by_role("checkbox").check()
    bench.start("lift it")
    bench.tab.keyboard.press("t")
    # The status may still tell of the period before, from which the expert's last move leads on.
    wait_until(bench.tab, lambda: (period := bench.session.status.period) is not None and period.by_hand)
    period = bench.session.status.period
    assert period is not None
    tcp_y = bench.table.spec.world.state.names.index("tcp_y")
    before, num_sent = period.reading.state[tcp_y], len(bench.table.sent_s)

    def moved_m() -> float:
        period = bench.session.status.period
        assert period is not None
        return float(period.reading.state[tcp_y] - before)

    for presses in range(1, 5):
        bench.tab.keyboard.press("j")
        wait_until(bench.tab, lambda: moved_m() > 0.5 * 0.04 * presses - 0.01)  # noqa: B023
    bench.tab.locator(".llamarm-state", has_text="You drive").wait_for()
    wait_until(bench.tab, lambda: len(bench.table.sent_s) >= num_sent + 8)
    assert moved_m() == pytest.approx(4 * 0.5 * 0.04, abs=0.01)
    bench.tab.keyboard.press("y")
    outcome = bench.end()
    assert (outcome.success, outcome.ended) == (True, "stopped: marked on the page")
    bench.tab.get_by_role("checkbox").uncheck()
    by_hand = DatasetReader(bench.record).episode(0).columns["intervention"]
    assert 7 <= by_hand.sum() < len(by_hand) and not by_hand[0]
    again = shutil.copytree(bench.record, bench.record.with_name("again"))
    assert TrainingData([bench.record], drives=[again]).num_rows == len(by_hand) + by_hand.sum()


def test_a_push_from_the_page_moves_the_object(bench: Bench) -> None:
    bench.choose("stack")
    bench.start("stack it")
    scene = bench.table.scene
    assert scene is not None
    bench.tab.keyboard.press("t")
    wait_until(bench.tab, lambda: bench.session.takeover.targets is not None)
    name = next(iter(scene.things))
    before = bench.table.poses().pos_m[scene.things[name]]
    bench.tab.get_by_role("button", name="left").click()
    wait_until(bench.tab, lambda: bench.table.poses().pos_m[scene.things[name]][1] - before[1] > 0.03)
    bench.tab.keyboard.press("Escape")
    assert bench.end().ended == "stopped: on the page"
    assert bench.errors == []


def test_an_object_is_dragged_with_the_mouse_and_the_hand_with_its_gizmo(bench: Bench) -> None:
    bench.choose("stack")
    bench.start("stack it")
    bench.tab.keyboard.press("t")
    wait_until(bench.tab, lambda: bench.session.takeover.targets is not None)
    scene = bench.table.scene
    assert scene is not None
    body = next(iter(scene.things.values()))
    start = bench.table.poses().pos_m[body]
    bench.drag(lambda: bench.table.poses().pos_m[body], up_m=0.10, least_m=0.06)
    wait_until(bench.tab, lambda: bench.table.poses().pos_m[body][2] - start[2] < 0.04)
    hand = bench.table.poses().tool_m
    # The gizmo's vertical axis is above the hand.
    bench.drag(lambda: bench.table.poses().tool_m, up_m=0.06, least_m=0.03, above_m=0.10)
    moved = bench.table.poses().tool_m - hand
    assert np.abs(moved[:2]).max() < 0.02
    bench.tab.keyboard.press("Escape")
    bench.end()
    assert bench.errors == []


def test_an_imported_robot_has_a_page_and_is_judged_there(bench: Bench, tmp_path: Path) -> None:
    arm = LineArm(WallClock())
    session = DriveSession(always(0.0), arm)
    page = Page(session, arm.spec, PageConfig(port=0, seconds=1.0, record=tmp_path / "drives"), instruction="go")
    ended = Event()
    thread = Thread(target=page.run, args=(ended,))
    thread.start()
    try:
        bench.tab.goto(page.address)
        headline = bench.tab.locator(".llamarm-state")
        headline.filter(has_text="At rest").wait_for()
        assert bench.tab.get_by_text("Disturb").count() == 0
        bench.tab.get_by_role("checkbox").check()
        bench.tab.get_by_role("button", name="Start").click()
        headline.filter(has_text="Did it succeed?").wait_for()
        bench.tab.keyboard.press("y")
        headline.filter(has_text="Success: time limit").wait_for()
    finally:
        ended.set()
        thread.join()
        page.close()
        session.close()
    (row,) = DatasetReader(tmp_path / "drives").episodes
    assert (row["tasks"], row["success"]) == (["go"], True)
