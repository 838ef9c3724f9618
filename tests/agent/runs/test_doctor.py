"""What the machine can do, asked of the machine itself and of one that lacks a part."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from agent.runs import doctor
from agent.runs.doctor import LIBERO, ROOT, ran

NAMES = ("llamarm", "processor", "memory", "disk", "GPU", "rendering", "video", "MuJoCo Warp", "Meta-World", "LIBERO")


def test_the_command_says_what_is_here_and_what_provides_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LIBERO.variable, "/nowhere/python")
    monkeypatch.setenv("MUJOCO_GL", "nonsense")
    command = [sys.executable, "-m", "agent.cli", "doctor"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    lines = [
        line.split(maxsplit=1) for line in done.stdout.splitlines() if line.startswith(("ready", "missing", "MISSING"))
    ]
    found = {name: state for state, rest in lines for name in NAMES if rest.startswith(name)}
    assert tuple(found) == NAMES
    assert {found[name] for name in ("llamarm", "processor", "memory", "disk", "video", "MuJoCo Warp")} == {"ready"}
    assert (found["rendering"], found["LIBERO"]) == ("MISSING", "missing")
    assert f"LIBERO make -C {ROOT} libero" in " ".join(done.stdout.split())
    assert done.stdout.rstrip().endswith("llamarm does not work without: rendering")
    assert done.returncode == 1
    assert "\x1b" not in done.stdout
    assert done.stderr.startswith("llamarm doctor: draws a frame")
    assert len(done.stderr.splitlines()) == 1


def test_a_frame_is_drawn_with_what_the_part_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    part = doctor._rendering()
    assert part.works
    assert part.found.split()[0] in ("egl", "osmesa")
    assert not part.remedy


def test_requirements_that_nothing_fulfils_are_named() -> None:
    required = ["numpy>=2", "torch>=99", "no-such-package>=1", "no-such-either; extra == 'dev'"]
    torch, none = doctor._unfulfilled(required)
    assert torch.startswith("torch>=99 (has ")
    assert none == "no-such-package>=1"


def test_what_a_process_cannot_do_is_said_in_one_line(tmp_path: Path) -> None:
    python = [sys.executable, "-c"]
    assert ran([*python, "print('a'); print('b')"]) == (True, "b")
    assert ran([*python, "import sys; print('a'); sys.exit('no')"]) == (False, "no")
    assert ran([*python, "import os; os._exit(3)"]) == (False, "ended with status 3")
    assert ran([*python, "import time; time.sleep(60)"], timeout_s=0.1) == (False, "no answer in 0 s")
    assert ran([str(tmp_path / "none")]) == (False, f"{tmp_path / 'none'}: No such file or directory")
