"""The command line on a GPU: the demo's recipe from collection to evaluation, ppo and dagger on many worlds.

A command runs in this process's group and within a time box; at its end Ctrl-C stops it, and what it printed so far is
the result.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.untrained import untrained
from envs.make import world_spec_of
from vla_model.weights.checkpoint import save_policy

_PHASE = re.compile(r"^(collect|update|improve|evaluate|peak memory[^:]*|[a-z]+ \d+/\d+)\b.*: .*")
"""Lines that a run prints of its phases."""
_GRACE_S = 15.0
"""To stop after Ctrl-C."""


def run(arguments: Sequence[str], log: Path, limit_s: float) -> dict[str, Any]:
    """Run `llamarm` with these arguments.

    Args:
        log: file for what it prints.
        limit_s: time box.

    Raises:
        RuntimeError: it failed; the message has its last lines.
    """
    began_s = time.perf_counter()
    with log.open("w") as out:
        command = [sys.executable, "-m", "agent.cli", *arguments]
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        in_time = _wait(process, limit_s)
        if not in_time:
            process.send_signal(signal.SIGINT)
            if not _wait(process, _GRACE_S):
                process.kill()
                process.wait()
    lines = [line.strip() for line in log.read_text().splitlines() if line.strip()]
    if in_time and process.returncode:
        raise RuntimeError("\n".join(lines[-5:]))
    return {
        "command": f"llamarm {' '.join(arguments)}",
        "seconds": time.perf_counter() - began_s,
        "in_time": in_time,
        "said": [line for line in lines if _PHASE.match(line)] if in_time else lines[-3:],
    }


def _wait(process: subprocess.Popen[bytes], limit_s: float) -> bool:
    try:
        process.wait(limit_s)
    except subprocess.TimeoutExpired:
        return False
    return True


def demo(out: Path, device: str, limit_s: float, sizes: Sequence[str]) -> dict[str, Any]:
    """sft_demo: collect, update and evaluate, in worlds on the device."""
    arguments = ["train", "sft_demo", "--out", str(out / "demo"), "--demonstrations.device", device, "--workers", "0"]
    return run([*arguments, "--evaluation.no-controls", *sizes], out / "demo.log", limit_s)


def improve(recipe: str, out: Path, device: str, limit_s: float, sizes: Sequence[str]) -> dict[str, Any]:
    """A recipe that improves an untrained nano, whose episodes take as long as episodes can."""
    init = out / "untrained"
    if not init.exists():
        save_policy(init, *untrained(world_spec_of("tabletop")))
    arguments = ["train", recipe, "--init", str(init), "--out", str(out / recipe), "--workers", "0"]
    arguments += ["--practice.device", device, "--evaluation.no-controls", "--evaluation.videos-per-task", "0"]
    return run([*arguments, *sizes], out / f"{recipe}.log", limit_s)
