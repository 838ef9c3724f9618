"""Distributed processes: what they return, and what happens when one fails or the user interrupts them."""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.distributed_c10d import all_reduce

from rollout.distributed import Process, run_in_processes


def sum_of_ranks(seen: Path, process: Process) -> dict[str, Any]:
    total = torch.tensor(process.rank + 1.0)
    all_reduce(total)
    process.report(total=float(total))
    while not seen.exists():
        time.sleep(0.01)
    return {"rank": process.rank, "count": process.count, "total": float(total), "pid": os.getpid()}


def wait_for_a_dead_neighbour(process: Process) -> None:
    if process.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    all_reduce(torch.zeros(1))


def refuse_in_one(process: Process) -> None:
    if process.rank == 1:
        raise ValueError("no such task")
    all_reduce(torch.zeros(1))


def count_until_stopped(folder: Path, process: Process) -> None:
    updates = 0
    while not process.interrupted():
        all_reduce(torch.zeros(1))
        updates += 1
        process.report(updates=updates)
    (folder / f"stopped-{process.rank}").write_text(str(updates))
    raise KeyboardInterrupt


def has_ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_processes_share_a_group_and_return_the_result_of_rank_0(tmp_path: Path) -> None:
    folder, seen = tmp_path / "group", tmp_path / "seen"
    folder.mkdir()

    def on_report(**report: float) -> None:
        assert report == {"total": 3.0}
        seen.touch()

    result = run_in_processes(partial(sum_of_ranks, seen), 2, folder, on_report=on_report)
    pid = result.pop("pid")
    assert result == {"rank": 0, "count": 2, "total": 3.0}
    assert not list(folder.iterdir())
    deadline_s = time.monotonic() + 60
    while not has_ended(pid):
        assert time.monotonic() < deadline_s, "a process was left behind"
        time.sleep(0.1)


@pytest.mark.long
def test_a_dead_process_ends_all_and_the_error_names_it(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="process 1 died"):
        run_in_processes(wait_for_a_dead_neighbour, 2, tmp_path)


def test_an_exception_in_a_process_is_reraised_with_its_rank(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such task") as raised:
        run_in_processes(refuse_in_one, 2, tmp_path)
    assert raised.value.__notes__ == ["raised in process 1"]


def test_an_interrupt_reaches_every_process_after_the_same_number_of_rounds(tmp_path: Path) -> None:
    updates = 0

    def on_report(**report: int) -> None:
        nonlocal updates
        updates = report["updates"]

    with pytest.raises(KeyboardInterrupt):
        run_in_processes(
            partial(count_until_stopped, tmp_path), 2, tmp_path, interrupted=lambda: updates > 0, on_report=on_report
        )
    first, second = ((tmp_path / f"stopped-{rank}").read_text() for rank in range(2))
    assert first == second
    assert int(first) > 0
