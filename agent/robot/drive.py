"""One drive: the control loop, at a fixed rate.

    control loop, every period              inference thread (agent/robot/inference.py)
      waits for the period ◄── StopSwitch     waits for an observation
      observes the robot
      receives a chunk ◄───────────────────── answers
      requests the next ────────────────────► runs the policy
      takes the next action of the chunks' path, or the operator's
      applies the safety filter
      sends it

Who waits: the loop, only for the next period's time; the clock or the StopSwitch unblocks it. So a slow or dead policy
delays no period, and a stop takes effect within one.
Order rule: a period's action is computed after its observation. A chunk is used from the first period after it arrives.

While a person drives (agent/robot/watch.py), inference continues, so that the policy can take over at once. Meanwhile
the path stands still and is replaced by every chunk whose observation was made during the takeover, because older
chunks are for other positions of the arm.

Period p begins at start + p dt, however long the previous one took; one that cannot begin in time is skipped and
counted, and recorded as held (agent/robot/record.py).

After any exception the robot is brought to rest and disconnected. Failures of the robot or the policy end the drive;
other exceptions are raised then.

Shape letters: A action dims, K chunk size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from annotated_types import Interval
from numpy.typing import NDArray

from agent.robot.chunk_path import ChunkPath
from agent.robot.clock import Clock, StopSwitch
from agent.robot.inference import Answer, Inference, PolicyError
from agent.robot.record import Recorder
from agent.robot.safety import Intervention, Reason, SafetyFilter, broken_parts
from agent.robot.types import Reading, Robot
from agent.robot.watch import Operator, Period, Watcher
from envs.errors import UserError
from rollout.dataset.spool import RecordingError

_SAME_TIME_S = 1e-6
"""Tolerance of sums of periods."""

_RESTED_AFTER_PERIODS = 1.5
"""An action lasts one period; after that long without one the arm is at rest. Jitter is smaller."""


@dataclass(frozen=True, kw_only=True)
class DriveConfig:
    """Latency handling of the control loop."""

    blend_decay: Annotated[float, Interval(ge=0, le=1)] = 0.3
    """Weight of a chunk relative to one whose observation is a move newer (agent/robot/chunk_path.py)."""
    correction: Annotated[float, Interval(ge=0, le=1)] = 0.5
    """Share of the deviation from a chunk's path that each move corrects (agent/robot/chunk_path.py)."""
    max_moves_ahead: Annotated[float, Interval(gt=0, le=1e9)] = 2.5
    """Limit of the moves between an observation and the last use of its chunk, at the last latency. Above it the arm
    slows down."""
    stale_after_periods: Annotated[float, Interval(gt=0, le=10_000)] = 1.0
    """The arm holds on older observations."""
    answer_within_periods: Annotated[float, Interval(gt=0, le=10_000)] = 4.0
    """A policy with a longer latency counts as silent, and the arm holds until its chunk arrives."""
    first_answer_within_s: Annotated[float, Interval(gt=0, le=86_400)] = 120.0
    """Timeout of the first inference, before anything moves; it includes encoding the instruction and warm-up."""
    refused_chunks: Annotated[int, Interval(ge=1, le=1_000_000)] = 10
    """Number of invalid chunks in a row, e.g. with NaN, that ends the drive."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of a drive."""

    instruction: str
    success: bool | None
    """The success flag given with a stop, else the robot's; None if there is neither."""
    ended: str
    """Why: "success", the robot's failure, "time limit", "stopped: ...", "robot failed: ..." ..."""
    num_steps: int
    """Control periods in which an action was sent."""
    missed_periods: int
    """Periods skipped because the previous one took too long."""
    lateness_ms: NDArray[np.float64]
    """Delay of each period's beginning against its schedule, [num_steps]: the jitter of the loop."""
    inference_ms: NDArray[np.float64]
    """Duration of each inference."""
    interventions: tuple[Intervention, ...]
    """Each time that the action sent differs from the action requested."""

    @property
    def result(self) -> str:
        """The success flag in words, and why the drive ended where that says more: "no success: step limit"."""
        flag = {True: "success", False: "no success", None: "success unknown"}[self.success]
        return flag if flag == self.ended else f"{flag}: {self.ended}"

    @property
    def jitter_p99_ms(self) -> float:
        """99th percentile of the lateness."""
        return float(np.percentile(self.lateness_ms, 99)) if len(self.lateness_ms) else 0.0

    def lines(self) -> list[str]:
        """A summary to print: result, jitter, latency and interventions."""
        lines = [f"{self.instruction} -> {self.result}, {self.num_steps} control periods"]
        if self.num_steps:
            lines.append(f"jitter {self.jitter_p99_ms:.1f} ms (99th percentile); {self.missed_periods} periods missed")
        if len(self.inference_ms):
            median, longest = np.median(self.inference_ms), np.max(self.inference_ms)
            lines.append(f"{len(self.inference_ms)} inferences of {median:.1f} ms (median), {longest:.1f} ms (maximum)")
        reasons = self.interventions_by_reason().items()
        lines.append(f"interventions: {', '.join(f'{reason} {count}' for reason, count in reasons) or 'none'}")
        return lines

    def interventions_by_reason(self) -> dict[Reason, int]:
        """Number of interventions for each reason."""
        reasons = [intervention.reason for intervention in self.interventions]
        return {reason: reasons.count(reason) for reason in dict.fromkeys(reasons)}


@dataclass(kw_only=True)
class Drive:
    """Drives once. The caller connects the robot; `run` disconnects it at its end."""

    robot: Robot
    """Connected."""
    inference: Inference
    """Of the policy, not shared with another drive."""
    clock: Clock
    """Also of the robot's timestamps."""
    switch: StopSwitch
    """Ends the drive from any thread."""
    config: DriveConfig
    recorder: Recorder | None = None
    operator: Operator | None = None
    watcher: Watcher | None = None

    def __post_init__(self) -> None:
        self._filter = SafetyFilter(self.robot.spec)
        self._dt_s = self.robot.spec.world.control_dt_s
        self._path = ChunkPath(
            self.robot.spec.relative,
            decay=self.config.blend_decay,
            correction=self.config.correction,
            two_valued=self.robot.spec.world.action.grippers,
        )
        self._reading: Reading | None = None
        self._instruction = ""
        self._requested_s: float | None = None  # None while no request is pending
        self._mark = self._path.mark()  # of the last request's observation
        self._by_hand = False
        self._requested_by_hand = False  # whether a person drove when that observation was made
        self._blind_since = False  # whether a period since then had no valid observation
        self._answer: tuple[float, Answer] | None = None  # with the moves made before its observation
        self._refused: str | None = None  # why the last chunk was refused; None after a valid one
        self._num_refused = 0  # in a row
        self._start_s = 0.0
        self._sent_s = 0.0
        self._period = 0
        self._lateness_s: list[float] = []
        self._inference_s: list[float] = []
        self._interventions: list[Intervention] = []

    def run(self, instruction: str, seconds: float, seed: int) -> Outcome:
        """Wait for the policy's first answer, drive, and leave the robot at rest and disconnected.

        Args:
            seconds: time limit, from the first period on.

        Raises:
            UserError: a reading before the first period differs from the robot's spec; nothing has moved.
        """
        self._instruction = instruction
        self._start_s = self.clock.now_s()  # for failures before the first period
        missed = 0
        try:
            ended = self._first_answer(seed)
            while ended is None:
                ended = self._tick(seconds)
                now = math.ceil((self.clock.now_s() - self._start_s - _SAME_TIME_S) / self._dt_s)
                missed += max(0, now - self._period - 1)
                self._period = max(now, self._period + 1)
        except PolicyError as failed:
            ended = f"policy failed: {failed.__cause__!r}"
            self._note("silent policy", str(failed))
        except RecordingError as error:
            ended = f"recording failed: {error}"
            self._note("recording failed", str(error))
        except OSError as error:
            ended = f"robot failed: {error!r}"
            self._note("robot failed", repr(error))
        finally:
            try:
                self._leave("stop", self.robot.stop)
            finally:
                self._leave("disconnect", self.robot.disconnect)
        stop = self.switch.wait()
        success = stop.success if stop is not None else None
        return Outcome(
            instruction=instruction,
            success=success if success is not None or self._reading is None else self._reading.success,
            ended=ended,
            num_steps=len(self._lateness_s),
            missed_periods=missed,
            lateness_ms=1000.0 * np.array(self._lateness_s),
            inference_ms=1000.0 * np.array(self._inference_s),
            interventions=tuple(self._interventions),
        )

    def _first_answer(self, seed: int) -> str | None:
        """Wait, at rest, for a first path; returns why there is none, else None."""
        sound = self._sound_reading()
        if self.recorder is not None:
            self.recorder.begin(sound)
        self.inference.begin(self._instruction, seed)
        patience_s = self.config.answer_within_periods * self._dt_s
        for _ in range(2):
            self._path.clear()
            self._request(self._sound_reading())
            requested_s = self.clock.now_s()
            if (ended := self._wait_for_path()) is not None:
                return ended
            if self.clock.now_s() - requested_s <= patience_s + _SAME_TIME_S:
                break  # otherwise the policy is warm now, and its observation too old
        self._start_s = self.clock.now_s()
        return None

    def _sound_reading(self) -> Reading:
        """The newest reading, before anything moves; it must match the robot's spec."""
        reading = self._observe()
        if problems := broken_parts(self.robot.spec, reading):
            raise UserError(f"{self.robot.spec.name} differs from its spec:\n  " + "\n  ".join(problems))
        self._filter.begin(reading.state)
        return reading

    def _wait_for_path(self) -> str | None:
        """Wait, at rest, for a valid chunk; returns why there is none, else None."""
        began_s = self.clock.now_s()
        while self._path.next_action() is None:
            if self.clock.now_s() - began_s > self.config.first_answer_within_s:
                return f"no answer within {self.config.first_answer_within_s:g} s"
            if (stop := self.clock.wait_until(self.clock.now_s() + self._dt_s, self.switch)) is not None:
                return f"stopped: {stop.reason}"
            self._receive()
            if self._refused is not None:
                return f"refused chunk: {self._refused}"
        return None

    def _tick(self, seconds: float) -> str | None:
        """One period; returns why the drive ends, else None."""
        scheduled_s = self._start_s + self._period * self._dt_s
        stop = self.clock.wait_until(scheduled_s, self.switch)
        now_s = self.clock.now_s()
        if stop is not None:
            self._note("stop", stop.reason)
            return f"stopped: {stop.reason}"
        if now_s - self._start_s >= seconds - _SAME_TIME_S:
            return "time limit"
        reading = self._observe()
        if reading.ended is not None:
            return reading.ended
        late_s = now_s - scheduled_s
        self._lateness_s.append(late_s)
        noted = len(self._interventions)
        trouble = self._filter.trouble_with(reading, now_s, self.config.stale_after_periods * self._dt_s + _SAME_TIME_S)
        blind = trouble is not None and trouble[0] in ("stale observation", "broken observation")
        wanted = None
        if self.operator is not None and not blind:
            wanted = self.operator.action(reading, self._filter.rest())
        self._by_hand = wanted is not None
        self._receive()
        if self._num_refused >= self.config.refused_chunks:
            return f"refused chunk: {self._refused}, {self._num_refused} in a row"
        if blind:
            # The scene may have changed unobserved, so neither these chunks nor the pending one are valid.
            self._path.clear()
            self._blind_since = True
        elif self._requested_s is None:
            self._request(reading)
        if wanted is None:
            trouble, wanted = trouble or self._silence(now_s), self._path.next_action()
        elif (broken := self._filter.broken_action(wanted)) is not None:
            trouble = trouble or ("refused action", broken)
        sent = self._send(reading, wanted, trouble)
        if self.watcher is not None:
            self._show(now_s, late_s, reading, sent, trouble, noted)
        return None

    def _show(
        self,
        now_s: float,
        late_s: float,
        reading: Reading,
        sent: NDArray[np.float32],
        trouble: tuple[Reason, str] | None,
        noted: int,
    ) -> None:
        """Call the watcher with this period; its interventions are those after the first `noted`."""
        assert self.watcher is not None
        requested_at, answer = self._answer or (0.0, None)
        self.watcher(
            Period(
                number=self._period,
                time_s=now_s - self._start_s,
                late_s=late_s,
                reading=reading,
                sent=sent,
                by_hand=self._by_hand,
                holding=trouble[0] if trouble is not None else None,
                answer=answer,
                moves_since=self._path.mark().moves - requested_at,
                interventions=tuple(self._interventions[noted:]),
            )
        )

    def _observe(self) -> Reading:
        """The newest reading; the last one again if there is none, which then becomes stale."""
        try:
            self._reading = self.robot.observe()
        except TimeoutError:
            if self._reading is None:
                raise
        return self._reading

    def _request(self, reading: Reading) -> None:
        self._requested_s, self._mark, self._requested_by_hand = self.clock.now_s(), self._path.mark(), self._by_hand
        self._blind_since = False
        self.inference.request(reading.observation(self._instruction, self._period))

    def _receive(self) -> None:
        """Add an answer to the path, or drop the whole path if the chunk is invalid."""
        answer = self.inference.receive()
        if answer is None:
            return
        assert self._requested_s is not None
        late_s, self._requested_s = self.clock.now_s() - self._requested_s, None
        self._inference_s.append(answer.inference_s)
        if self._blind_since:
            return
        self._refused = self._filter.refusal(answer.chunk)
        self._num_refused = self._num_refused + 1 if self._refused is not None else 0
        if self._refused is not None:
            self._path.clear()
            self._note("refused chunk", self._refused, came=answer.chunk)
            return
        self._answer = self._mark.moves, answer
        if self._requested_by_hand:
            self._path.clear()
        self._path.add(self._mark, answer.chunk[0])
        if self._lateness_s:  # the first inference includes warm-up
            # A chunk is needed until the next one arrives, which takes as long again.
            periods = max(1, round(late_s / self._dt_s))
            self._path.pace = min(1.0, self.config.max_moves_ahead / (2 * periods))

    def _silence(self, now_s: float) -> tuple[Reason, str] | None:
        """Why the policy gives no action; None if it does."""
        waited_s = now_s - self._requested_s if self._requested_s is not None else 0.0
        if waited_s > self.config.answer_within_periods * self._dt_s + _SAME_TIME_S:
            return "silent policy", f"no answer for {1000 * waited_s:.0f} ms"
        if self._path.next_action() is None:
            return (
                ("late chunk", "the last one is used up") if self._refused is None else ("refused chunk", self._refused)
            )
        return None

    def _send(
        self, reading: Reading, wanted: NDArray[np.float32] | None, trouble: tuple[Reason, str] | None
    ) -> NDArray[np.float32]:
        """Send the action within the limits, or rest if there is trouble; returns the executed action."""
        now_s = self.clock.now_s()
        if now_s - self._sent_s > _RESTED_AFTER_PERIODS * self._dt_s:
            self._filter.came_to_rest()
        self._sent_s = now_s
        rest = self._filter.rest()
        if trouble is not None or wanted is None:
            sent, changes = rest, dict([trouble] if trouble is not None else [])
        else:
            sent, changes = self._filter.limited(wanted, reading.state)
        returned = self.robot.act(sent)
        broken = self._filter.broken_action(returned)
        executed = (
            sent if broken is not None else np.array(returned, np.float32)
        )  # a copy: the robot may reuse its array
        if trouble is None and not self._by_hand:
            self._path.moved(executed)
        self._filter.was_sent(executed, reading.state, resting=trouble is not None)
        for reason, detail in changes.items():
            self._note(reason, detail, came=wanted, sent=executed)
        held = trouble is not None or broken is not None
        if self.recorder is not None:
            sound = None if "broken observation" in changes else reading
            by_hand = self._by_hand and not held
            self.recorder.add(self._period, sound, executed, by_hand=by_hand, held=held, rest=rest)
        if broken is not None:
            raise ConnectionError(f"{self.robot.spec.name} does not return the executed action: {broken}")
        return executed

    def _leave(self, name: str, leave: Callable[[], None]) -> None:
        """Stop or disconnect; a failure is noted, and the drive's result is kept."""
        try:
            leave()
        except OSError as error:
            self._note("robot failed", f"{name}: {error!r}")

    def _note(
        self, reason: Reason, detail: str, came: NDArray[Any] | None = None, sent: NDArray[np.float32] | None = None
    ) -> None:
        time_s = self.clock.now_s() - self._start_s
        self._interventions.append(
            Intervention(time_s=time_s, period=self._period, reason=reason, detail=detail, came=came, sent=sent)
        )
