"""Progress where nobody watches a terminal: lines that a log can hold."""

from __future__ import annotations

import re

import pytest

from agent import progress


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line for line in capsys.readouterr().out.splitlines() if line.strip()]


def test_a_log_gets_a_line_now_and_then_and_the_last_state(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock_s = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock_s[0])
    with progress.progress_bars() as bars:
        bar = bars.add_task("episodes", total=90)
        for _ in range(90):
            clock_s[0] += 1.0
            bars.advance(bar)
        during = lines(capsys)
    assert [re.findall(r"\d+/90", line) for line in during] == [["1/90"], ["31/90"], ["61/90"]]
    assert ["90/90" in line for line in lines(capsys)] == [True]
