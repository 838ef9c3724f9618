"""Peak resident memory is that of the process itself, not of its parent."""

from __future__ import annotations

import subprocess
import sys

import numpy as np

from rollout.peak_memory import peak_memory_gb


def test_the_peak_grows_with_allocations_and_stays_after_they_are_freed() -> None:
    before_gb = peak_memory_gb()
    held = np.ones(int((before_gb + 0.2) * 1e9 / 8))
    assert peak_memory_gb() >= held.nbytes / 1e9
    del held
    assert peak_memory_gb() >= before_gb + 0.2


def test_a_small_child_of_a_large_process_has_a_small_peak() -> None:
    held = np.ones(int(0.5e9 / 8))
    child = subprocess.run(
        [sys.executable, "-c", "from rollout.peak_memory import peak_memory_gb; print(peak_memory_gb())"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(child.stdout) < 0.1
    assert peak_memory_gb() > held.nbytes / 1e9
