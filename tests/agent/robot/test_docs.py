"""The code of docs/your_robot.md runs."""

from __future__ import annotations

import itertools
import sys
import time
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from line_arm import Script

from agent.robot.agent import Agent
from agent.robot.camera import OpenCVCamera
from benchmarks.simulated import SimulatedClock, SimulatedInference
from rollout.dataset.read import DatasetReader

DOCS = Path(__file__).parents[3] / "docs" / "your_robot.md"


class Bus:
    """Motors that are always at their last target."""

    def __init__(self, port: str) -> None:
        self.port = port
        self.targets = np.zeros(3)
        self.closed = False

    def positions(self) -> list[float]:
        return self.targets.tolist()

    def move(self, targets: object) -> None:
        self.targets = np.array(targets, np.float64)

    def close(self) -> None:
        self.closed = True


class Leader:
    """A person who moves the first joint."""

    def action(self) -> np.ndarray:
        return np.array([0.5, 0.0, 0.0], np.float32)


def add_module(monkeypatch: pytest.MonkeyPatch, name: str, content: dict[str, Any]) -> None:
    """Let the documented code import a module of its own."""
    module = ModuleType(name)
    vars(module).update(content)
    monkeypatch.setitem(sys.modules, name, module)


def block(first_line: str) -> str:
    """The page's block that begins with a comment of its file's name."""
    (found,) = [text for text in DOCS.read_text().split("```python\n") if text.startswith(f"# {first_line}")]
    return found.split("```")[0]


def run_block(text: str) -> dict[str, Any]:
    """The names that a block defines."""
    names: dict[str, Any] = {"__name__": "documented"}
    exec(compile(text, str(DOCS), "exec"), names)
    return names


def module_of_the_docs(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The documented robot's module, with simulated motors and camera."""
    add_module(monkeypatch, "my_driver", {"Bus": Bus})
    monkeypatch.setattr(OpenCVCamera, "connect", lambda camera: None)
    monkeypatch.setattr(OpenCVCamera, "close", lambda camera: None)
    return run_block(block("my_arm.py"))


def test_the_documented_robot_is_driven_within_its_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimulatedClock()
    frame = np.zeros((128, 128, 3), np.uint8)
    monkeypatch.setattr(OpenCVCamera, "latest", lambda camera: (frame, clock.now_s()))
    robot = module_of_the_docs(monkeypatch)["make_robot"]()
    policy = Script(lambda n, x: np.tile(np.array([1.0, -0.5, 0.0], np.float32), (1, 8, 1)))
    make_inference = partial(SimulatedInference, clock=clock, latency_s=lambda n: 0.0)
    outcome = Agent(policy, robot, clock=clock, make_inference=make_inference).run("wave", 5.0)
    assert robot.bus.targets == pytest.approx([1.4, -0.75, 0.0], abs=1e-3)
    assert robot.bus.closed
    assert set(outcome.interventions_by_reason()) == {"acceleration", "velocity", "position"}


def test_the_documented_script_records_what_a_person_does(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = itertools.count()
    monkeypatch.setattr(
        OpenCVCamera, "latest", lambda camera: (np.full((128, 128, 3), next(frames) % 200, np.uint8), time.monotonic())
    )
    add_module(monkeypatch, "my_arm", module_of_the_docs(monkeypatch))
    add_module(monkeypatch, "my_leader", {"Leader": Leader})
    monkeypatch.setattr("builtins.input", lambda question: "y")
    monkeypatch.chdir(tmp_path)
    run_block(block("record.py").replace("range(50)", "range(2)").replace("seconds=20", "seconds=2"))
    recorded = DatasetReader(tmp_path / "recordings")
    assert [episode["tasks"] for episode in recorded.episodes] == [["pick up the red cube"]] * 2
    assert capsys.readouterr().out.count("-> success") == 2
