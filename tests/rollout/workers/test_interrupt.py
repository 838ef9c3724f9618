"""Ctrl-C or SIGTERM on a command that collects with workers: no process is left, and no finished episode is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from descendants import descendants

from rollout.dataset.read import DatasetReader

COMMAND = ["-m", "agent.cli", "collect", "sft_demo", "--workers", "2", "--tasks", "lift", "--episodes-per-task", "2000"]
GONE_WITHIN_S = 60.0


def num_stored(root: Path) -> int:
    return len(list((root / "meta/episodes").rglob("*.parquet")))


def num_collectors(processes: dict[int, str]) -> int:
    return sum(name.startswith("ray::Collector") for name in processes.values())


@pytest.mark.parametrize(
    ("number", "to_whole_group"),
    [
        pytest.param(signal.SIGINT, True, id="as a terminal sends it"),
        pytest.param(signal.SIGINT, False, id="to the command alone", marks=pytest.mark.long),
        pytest.param(signal.SIGTERM, False, id="as a scheduler sends it"),
    ],
)
def test_ctrl_c_and_sigterm_leave_no_process_and_keep_finished_episodes(
    tmp_path: Path, number: signal.Signals, to_whole_group: bool
) -> None:
    root = tmp_path / "demos"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = subprocess.Popen(
        [sys.executable, *COMMAND, "--out", str(root)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=environment,
    )
    try:
        started: dict[int, str] = {}
        while (num_stored(root) < 3 or num_collectors(started) < 2) and process.poll() is None:
            time.sleep(0.1)
            started = descendants(process.pid)
        before = num_stored(root)
        assert num_collectors(started) == 2
        if to_whole_group:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        _, error = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 128 + number
    assert "Stopped. To go on: llamarm collect sft_demo" in error
    deadline_s = time.monotonic() + GONE_WITHIN_S
    while (left := started.keys() & descendants(1).keys()) and time.monotonic() < deadline_s:
        time.sleep(0.1)
    assert not left, [started[pid] for pid in left]
    assert len(DatasetReader(root).episodes) >= before >= 3
