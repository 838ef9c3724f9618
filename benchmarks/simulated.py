"""A drive in simulated time: a clock that advances at once, and inference with an exactly set latency.

With both, the control loop runs as fast as its policy and its robot compute, every run is the same to the last bit, and
a fault occurs at the time that a test sets. Simulated time has no jitter, which only real threads have.
"""

from __future__ import annotations

from collections.abc import Callable

from agent.robot.clock import Stop, StopSwitch
from agent.robot.inference import Answer, PolicyError, infer
from envs.types import Observation
from vla_model.types import Policy

_SAME_TIME_S = 1e-9
"""Sums of periods differ by less."""


class SimulatedClock:
    """Clock of agent/robot/clock.py whose waits return at once. Scheduled calls run at their time.

    They stand in for other threads.
    """

    def __init__(self) -> None:
        self._now_s = 0.0
        self._scheduled: list[tuple[float, Callable[[], object]]] = []

    def now_s(self) -> float:
        return self._now_s

    def wait_until(self, time_s: float, switch: StopSwitch) -> Stop | None:
        while (stop := switch.wait()) is None and self._scheduled and self._scheduled[0][0] <= time_s:
            at_s, call = self._scheduled.pop(0)
            self._now_s = max(self._now_s, at_s)
            call()
        if stop is None:
            self._now_s = max(self._now_s, time_s)
        return stop

    def jump(self, time_s: float) -> None:
        """Advance the clock to this time."""
        self.wait_until(time_s, StopSwitch())

    def at(self, time_s: float, call: Callable[[], object]) -> None:
        """Schedule a call for this time."""
        self._scheduled = sorted([*self._scheduled, (time_s, call)], key=lambda entry: entry[0])


class SimulatedInference:
    """Inference of agent/robot/inference.py in the loop's own thread, whose answers arrive after a given latency."""

    def __init__(self, policy: Policy, clock: SimulatedClock, latency_s: Callable[[int], float]) -> None:
        """
        Args:
            policy: run at once.
            clock: of the drive.
            latency_s: of the n-th answer, counted from 0.
        """
        self._policy = policy
        self._clock = clock
        self._latency_s = latency_s
        self._count = 0
        self._answer: tuple[float, Answer | Exception] | None = None

    def begin(self, instruction: str, seed: int) -> None:
        self._policy.begin([0], (instruction,), (seed,))

    def request(self, observation: Observation) -> None:
        ready_s = self._clock.now_s() + self._latency_s(self._count)
        self._count += 1
        try:
            self._answer = ready_s, infer(self._policy, observation)
        except Exception as error:
            self._answer = ready_s, error

    def receive(self) -> Answer | None:
        if self._answer is None or self._clock.now_s() < self._answer[0] - _SAME_TIME_S:
            return None
        (_, answer), self._answer = self._answer, None
        if isinstance(answer, Exception):
            raise PolicyError(f"the policy raised {answer!r}") from answer
        return answer

    def close(self) -> None:
        self._answer = None
