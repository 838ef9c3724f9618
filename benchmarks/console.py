"""The live page: its update rate, the frame rate in a browser, its cost to the control loop, and the latency of
Stop.

    python -m benchmarks.console --out docs/results/console.md --screenshots docs

Run it on an idle machine. A model with random weights (or --policy) drives the simulated arm in real time, and a
headless Chromium without a GPU displays it, so rendering competes with the loop and the policy for cores.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread

import numpy as np
import torch
import tyro
from numpy.typing import NDArray

from agent.console.drive_session import DriveSession
from agent.console.page import Page, PageConfig
from agent.console.table import LiveTable
from agent.runs.run_folder import machine, policy_folder
from benchmarks.browser import Tab, browser_tab, wait_until
from benchmarks.document import finish, head
from benchmarks.untrained import untrained
from envs.tabletop.episodes.variations import VARIATIONS
from envs.tabletop.world import TabletopWorld
from envs.types import EpisodeSpec
from vla_model.policy import VLAPolicy

_INSTRUCTION = "put the red cube in the blue bowl"
_COUNT_DRAWN = """
    window.drawn = 0
    let dirty = false
    for (const name of ['drawArrays', 'drawElements', 'drawElementsInstanced']) {
        const draw = WebGL2RenderingContext.prototype[name]
        WebGL2RenderingContext.prototype[name] = function (...given) { dirty = true; return draw.apply(this, given) }
    }
    const frame = () => { window.drawn += dirty; dirty = false; requestAnimationFrame(frame) }
    requestAnimationFrame(frame)
"""
"""Counts frames in which the 3-D view was drawn anew."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure."""

    model: str = "nano"
    """Model of the policy, by its name for vla_model/create.py."""
    policy: Path | None = None
    """A run whose policy is used instead."""
    task: str = "pick_place"
    seconds: float = 20.0
    """Duration of each measurement."""
    stops: int = 20
    """Number of clicks on Stop."""
    out: Path | None = None
    """File to which the tables are written, in addition to the screen."""
    screenshots: Path | None = None
    """Folder for screenshots of the page."""
    measure: bool = True
    """--no-measure only takes the screenshots."""


class TimedTable(LiveTable):
    """Records the time at which it is stopped, in seconds since the epoch."""

    stopped_s: float = 0.0

    def stop(self) -> None:
        self.stopped_s = time.time()
        super().stop()


@dataclass(frozen=True)
class Desk:
    """A page, what it shows, and a browser, if one is open."""

    session: DriveSession
    page: Page
    table: TimedTable
    tab: Tab | None

    def wait(self, seconds: float) -> None:
        if self.tab is not None:
            self.tab.wait_for_timeout(1000 * seconds)
        else:
            time.sleep(seconds)

    def ended(self) -> bool:
        return not self.session.busy and self.session.status.state == "idle"


@contextmanager
def desk(options: Options, *, browser: bool) -> Iterator[Desk]:
    """Start all parts, and stop them at the end."""
    world = TabletopWorld(1)
    if options.policy is not None:
        policy = VLAPolicy.from_pretrained(policy_folder(options.policy))
    else:
        policy = VLAPolicy(*untrained(world.world_spec, options.model))
    table = TimedTable(world, EpisodeSpec(suite="tabletop", task=options.task, seed=1_000_000))
    ended = Event()
    with ExitStack() as stack:
        session = stack.enter_context(closing(DriveSession(policy, table, close=world.close)))
        session.show(table.episode)
        config = PageConfig(port=0, seconds=600.0)
        page = stack.enter_context(
            closing(Page(session, table.spec, config, table=table, tasks=world.tasks, variations=VARIATIONS))
        )
        thread = Thread(target=page.run, args=(ended,))
        thread.start()
        stack.callback(thread.join)
        stack.callback(ended.set)
        tab = stack.enter_context(browser_tab(page.address)) if browser else None
        if tab is not None:
            tab.get_by_text("At rest").wait_for()
            tab.wait_for_timeout(3000)
        yield Desk(session, page, table, tab)


def lateness(desk: Desk, seconds: float) -> NDArray[np.float64]:
    """Lateness of the starts of control periods, in ms; one episode after the other."""
    late: list[NDArray[np.float64]] = []
    deadline_s = time.monotonic() + seconds
    while (left_s := deadline_s - time.monotonic()) > 0.5:
        desk.session.start(_INSTRUCTION, left_s)
        while not desk.ended():
            desk.wait(0.1)
        assert desk.session.status.outcome is not None
        late.append(desk.session.status.outcome.lateness_ms)
    return np.concatenate(late)


def loop_rows(options: Options) -> Iterator[str]:
    """Rows on the page's cost to the control loop, and its update rate meanwhile."""
    yield "| who looks | periods | late by, median | 99 % | at most | updates of the page |"
    yield "|---|---|---|---|---|---|"
    for browser in (False, True):
        with desk(options, browser=browser) as found:
            late = lateness(found, options.seconds)
            quantiles = " | ".join(f"{q:.2f} ms" for q in np.percentile(late, [50, 99, 100]))
            who = "a browser" if browser else "nobody"
            yield f"| {who} | {len(late)} | {quantiles} | {found.page.rate_hz:.1f} per second |"


def browser_rows(options: Options) -> Iterator[str]:
    """Rows on the frame rate in a browser."""
    yield "| while the arm moves | |"
    yield "|---|---|"
    with desk(options, browser=True) as found:
        assert found.tab is not None
        found.tab.add_init_script(_COUNT_DRAWN)
        found.tab.reload()
        found.tab.get_by_text("At rest").wait_for()
        found.tab.wait_for_timeout(3000)
        found.session.start(_INSTRUCTION, 600.0)
        wait_until(found.tab, lambda: found.session.status.state == "driving")
        before, began_s = found.tab.evaluate("window.drawn"), time.time()
        found.tab.wait_for_timeout(1000 * min(5.0, options.seconds))
        drawn_hz = (found.tab.evaluate("window.drawn") - before) / (time.time() - began_s)
        yield f"| updates that the page sends | {found.page.rate_hz:.1f} per second |"
        yield f"| frames that the browser draws | {drawn_hz:.1f} per second |"
        found.session.stop()
        wait_until(found.tab, found.ended)
        delays_ms = np.array([stop_delay_ms(found, found.tab) for _ in range(options.stops)])
        quantiles = ", ".join(f"{q:.0f} ms" for q in np.percentile(delays_ms, [50, 100]))
        yield f"| from the click on Stop to the robot's stop, median and longest of {options.stops} | {quantiles} |"


def stop_delay_ms(found: Desk, tab: Tab) -> float:
    """Time from a click on Stop in the browser to the robot's stop."""
    found.session.start(_INSTRUCTION, 600.0)
    wait_until(tab, lambda: found.session.status.state == "driving")
    tab.evaluate("addEventListener('click', () => { window.clicked_ms = Date.now() }, { capture: true, once: true })")
    tab.get_by_role("button", name="Stop").click()
    wait_until(tab, found.ended)
    return 1000 * found.table.stopped_s - tab.evaluate("window.clicked_ms")


def pictures(options: Options, folder: Path) -> None:
    """Screenshots of the page while the policy drives, and while a person does."""
    with desk(options, browser=True) as found:
        tab = found.tab
        assert tab is not None
        notice = tab.locator(".mantine-Notification-closeButton")  # viser's warning about software rendering
        notice.click()
        notice.wait_for(state="hidden")
        tab.mouse.move(720, 850)
        for name, by_hand in (("console", False), ("console_takeover", True)):
            found.session.start(found.session.status.instruction, 600.0)
            wait_until(tab, lambda: found.session.status.state == "driving")
            tab.wait_for_timeout(700)
            if by_hand:
                found.session.takeover.take()
                tab.wait_for_timeout(1000)
            tab.screenshot(path=folder / f"{name}.png")
            found.session.stop()
            wait_until(tab, found.ended)


def main(options: Options) -> None:
    """Measure, print and write."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    conditions = (
        f"{machine()['cores']} cores of {machine()['cpu']}, torch {torch.__version__}, one thread for the model, "
        "headless Chromium without a GPU on the same machine."
    )
    if options.screenshots is not None:
        pictures(options, options.screenshots)
    if not options.measure:
        return
    lines = [
        *head("Cost of the live page", "console", conditions),
        "",
        "The control loop at 10 Hz in real time while the page is updated, with and without a browser:",
        "",
        *loop_rows(options),
        "",
        "In the browser:",
        "",
        *browser_rows(options),
    ]
    finish(lines, options.out)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
