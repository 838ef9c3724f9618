"""The code of docs/driving.md runs."""

from __future__ import annotations

import sys
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

DOCS = Path(__file__).parents[3] / "docs" / "driving.md"


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


def robot_of_the_docs(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The documented robot, with simulated motors and camera."""
    driver = ModuleType("my_driver")
    vars(driver)["Bus"] = Bus
    monkeypatch.setitem(sys.modules, "my_driver", driver)
    monkeypatch.setattr(OpenCVCamera, "connect", lambda camera: None)
    monkeypatch.setattr(OpenCVCamera, "close", lambda camera: None)
    (example,) = [block for block in DOCS.read_text().split("```python\n") if block.startswith("# my_arm.py")]
    names: dict[str, Any] = {"__name__": "my_arm"}
    exec(compile(example.split("```")[0], str(DOCS), "exec"), names)
    return names["make_robot"]()


def test_the_documented_robot_is_driven_within_its_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimulatedClock()
    frame = np.zeros((128, 128, 3), np.uint8)
    monkeypatch.setattr(OpenCVCamera, "latest", lambda camera: (frame, clock.now_s()))
    robot = robot_of_the_docs(monkeypatch)
    policy = Script(lambda n, x: np.tile(np.array([1.0, -0.5, 0.0], np.float32), (1, 8, 1)))
    make_inference = partial(SimulatedInference, clock=clock, latency_s=lambda n: 0.0)
    outcome = Agent(policy, robot, clock=clock, make_inference=make_inference).run("wave", 5.0)
    assert robot.bus.targets == pytest.approx([1.4, -0.75, 0.0], abs=1e-3)
    assert robot.bus.closed
    assert set(outcome.interventions_by_reason()) == {"acceleration", "velocity", "position"}
