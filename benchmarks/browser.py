"""A headless Chromium with software rendering, for the benchmark and the tests of the live page."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from playwright.sync_api import Page as Tab
from playwright.sync_api import sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
_OPTIONS = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist", "--no-sandbox")
PATIENCE_S = 300.0
"""A software renderer on a busy machine needs seconds for its first frame."""


def chromium() -> str | None:
    """Path of the Chromium executable; None if there is none."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


@contextmanager
def browser_tab(address: str, width: int = 1440, height: int = 900) -> Iterator[Tab]:
    """A browser tab with the page at that address.

    Raises:
        FileNotFoundError: there is no Chromium.
    """
    path = chromium()
    if path is None:
        raise FileNotFoundError("no Chromium; Debian has it: sudo apt-get install -y chromium fonts-dejavu-core")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(_OPTIONS))
        tab = browser.new_page(viewport={"width": width, "height": height})
        tab.set_default_timeout(1000 * PATIENCE_S)
        tab.goto(address)
        yield tab
        browser.close()


def wait_until(tab: Tab, true: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
    """Let the browser run until a condition holds.

    Raises:
        TimeoutError: the condition did not hold in time.
    """
    deadline_s = time.monotonic() + patience_s
    while not true():
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"not so within {patience_s:g} s")
        tab.wait_for_timeout(20)
