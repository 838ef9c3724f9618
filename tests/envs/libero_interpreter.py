"""What several tests of LIBERO share: scripts that run in the suite's own interpreter."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import pytest

from envs.suites.hosted.interpreter import ROOT
from envs.suites.libero.world import INTERPRETER

needs_libero = pytest.mark.skipif(
    not INTERPRETER.path.exists(), reason=f"{INTERPRETER.path} does not exist: make libero"
)


def run_in_libero(script: str, *arguments: str) -> Any:
    """What the script prints last, as JSON."""
    one_thread = {"OMP_NUM_THREADS": "1", "LP_NUM_THREADS": "0"}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MUJOCO_GL": "egl", **one_thread}
    command = [str(INTERPRETER.path), "-c", script, *arguments]
    out = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert out.returncode == 0, out.stderr
    return json.loads(out.stdout.splitlines()[-1])
