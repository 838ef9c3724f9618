"""An arm on a line, in simulated time: where it is at every moment can be computed by hand.

Action a in [-1, 1] moves it at a / dt per second for one period dt, so one period of 1 is one unit; then it rests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.robot.agent import Agent
from agent.robot.drive import DriveConfig, Outcome
from agent.robot.types import Axis, Limits, Reading, RobotSpec
from agent.robot.watch import Operator, Watcher
from benchmarks.simulated import SimulatedInference
from envs.types import CameraSpec, Observation, VectorSpec, WorldSpec
from vla_model.types import ActionChunk, Policy

DT_S = 0.1
_NOTHING = VectorSpec(names=(), units=(), low=(), high=())
WORLD_SPEC = WorldSpec(
    cameras=(CameraSpec(name="front", height=4, width=6),),
    state=VectorSpec(names=("x",), units=("unit",), low=(-99.0,), high=(99.0,)),
    action=VectorSpec(names=("dx",), units=("unit/step",), low=(-1.0,), high=(1.0,)),
    localization=_NOTHING,
    control_dt_s=DT_S,
)

FRESH_S = 1e9
"""Time of a frozen reading that is always current."""


class LineArm:
    """Robot of agent/robot/types.py. Faults are attributes that a test sets, now or through the clock."""

    def __init__(self, clock: Any, limits: Limits | None = None, dt_s: float = DT_S) -> None:
        axis = Axis(state="x", relative=True, limits=limits or Limits())
        self.spec = RobotSpec(name="line", world=replace(WORLD_SPEC, control_dt_s=dt_s), axes=(axis,))
        self.clock = clock
        self.dt_s = dt_s
        self.sent: list[tuple[float, float]] = []
        """(time, action), the last of them until a period after it or the next."""
        self.stops_s: list[float] = []
        self.frozen: Reading | None = None
        self.broken = False
        self.connected = False

    def connect(self) -> None:
        self.connected = True

    def observe(self) -> Reading:
        if self.broken:
            raise ConnectionError("the cable is out")
        if self.frozen is not None:
            return self.frozen if self.frozen.time_s != FRESH_S else replace(self.frozen, time_s=self.clock.now_s())
        now_s = self.clock.now_s()
        frames = {"front": np.full((4, 6, 3), 7, np.uint8)}
        return Reading(frames=frames, state=np.array([self.x(now_s)], np.float32), time_s=now_s)

    def act(self, action: NDArray[np.float32]) -> NDArray[np.float32]:
        if self.broken:
            raise ConnectionError("the cable is out")
        self.sent.append((self.clock.now_s(), float(action[0])))
        return action

    def stop(self) -> None:
        if self.broken:
            raise ConnectionError("the cable is out")
        self.stops_s.append(self.clock.now_s())
        self.sent.append((self.clock.now_s(), 0.0))

    def disconnect(self) -> None:
        self.connected = False

    def freeze(self) -> None:
        """The camera gives nothing new from now on."""
        self.frozen = self.observe()

    def thaw(self) -> None:
        self.frozen = None

    def break_cable(self) -> None:
        self.broken = True

    def x(self, time_s: float) -> float:
        """Where it is at that time."""
        nexts_s = [*(start_s for start_s, _ in self.sent[1:]), np.inf][: len(self.sent)]
        spans_s = [
            max(0.0, min(next_s, start_s + self.dt_s, time_s) - start_s)
            for (start_s, _), next_s in zip(self.sent, nexts_s, strict=True)
        ]
        return sum(a * span_s / self.dt_s for (_, a), span_s in zip(self.sent, spans_s, strict=True))

    @property
    def actions(self) -> list[float]:
        """Everything that was sent, but for stops."""
        return [round(a, 4) for s, a in self.sent if s not in self.stops_s]


class Script:
    """Policy whose n-th chunk is a function of (n, the observed state): [K] numbers, or anything invalid."""

    version = 3

    def __init__(self, chunk: Callable[[int, float], object]) -> None:
        self.chunk = chunk
        self.calls = 0
        self.instructions: list[str] = []

    def begin(self, worlds: Sequence[int], instructions: tuple[str, ...], seeds: tuple[int, ...]) -> None:
        del worlds, seeds
        self.instructions.extend(instructions)

    def act(self, worlds: Sequence[int], observation: Observation) -> ActionChunk:
        said = self.chunk(self.calls, float(observation["state"][0, 0]))
        self.calls += 1
        chunk = np.asarray(said, np.float32)
        return ActionChunk(actions=chunk[None, :, None] if chunk.ndim == 1 else chunk)


def always(value: float, length: int = 8) -> Script:
    return Script(lambda n, x: [value] * length)


def agent_for(
    arm: LineArm,
    policy: Policy,
    latency_s: Callable[[int], float] = lambda n: 0.0,
    operator: Operator | None = None,
    watcher: Watcher | None = None,
    **config: Any,
) -> Agent:
    """An agent in simulated time that by default follows only the newest chunk, at full pace."""
    make_inference = partial(SimulatedInference, clock=arm.clock, latency_s=latency_s)
    defaults: dict[str, Any] = {"blend_decay": 0.0, "correction": 0.0, "max_moves_ahead": 1e9}
    changed = DriveConfig(**(defaults | config))
    return Agent(
        policy,
        arm,
        config=changed,
        clock=arm.clock,
        make_inference=make_inference,
        operator=operator,
        watcher=watcher,
    )


def drive(
    arm: LineArm, policy: Policy, seconds: float, latency_s: Callable[[int], float] = lambda n: 0.0, **config: Any
) -> Outcome:
    """Drive the arm in simulated time."""
    return agent_for(arm, policy, latency_s, None, None, **config).run("go", seconds)
