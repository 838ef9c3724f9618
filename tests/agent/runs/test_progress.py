"""Progress without a terminal: a few lines for a log."""

from __future__ import annotations

import re

import pytest
from sides_world import SidesWorld

from agent.runs import progress
from envs.types import EpisodeSpec
from rollout.collect import collect
from rollout.expert import ExpertPolicy


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line for line in capsys.readouterr().err.splitlines() if line.strip()]


def test_progress_in_a_log_is_a_few_lines_with_the_last_state(
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


def test_the_episodes_bar_shows_successes_and_frame_rate(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock_s = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock_s[0])
    world = SidesWorld(1)
    # The expert stands still where the seed is a multiple of 5: four episodes of 3 steps, and one of 8.
    specs = [EpisodeSpec(suite="sides", task="left", seed=seed) for seed in range(1, 6)]
    trajectories = list(collect(ExpertPolicy(world), world, specs))
    with progress.progress_bars() as bars:
        bar = progress.EpisodesBar(bars, "demonstrations", total=4)
        clock_s[0] += 2.0
        for trajectory in trajectories:
            bar.show(trajectory, counts=trajectory.success)
    last = lines(capsys)[-1]
    assert "demonstrations, 80% success, 20 frames/s" in last  # 4 of 5; 2 cameras x (4 x 3 + 8) frames in 2 s
    assert "4/4" in last
