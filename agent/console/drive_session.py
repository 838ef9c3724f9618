"""DriveSession: the commands of a page, and the thread that executes them; independent of the page itself.

    page's threads                         driving thread
      show(episode) ─────► orders ───────►   shows a table, or drives; one order after the other
      start(...)    ─────►
      stop(), mark(), takeover  ─────────►   take effect in the control loop within one period
      read `status` ◄────────────────────    updates it every period

Who waits: the driving thread, for an order; within a drive as in agent/robot/drive.py; and for `mark`, where the robot
has no success flag. A stop bypasses the queue of orders. One thread does everything with the robot, because a renderer
belongs to the thread that created it.
"""

from __future__ import annotations

import collections
import queue
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from agent.console.takeover import Takeover
from agent.robot.agent import Agent
from agent.robot.drive import DriveConfig, Outcome
from agent.robot.safety import Intervention
from agent.robot.types import Reading, Robot
from agent.robot.watch import Period
from envs.errors import UserError
from envs.types import EpisodeSpec
from vla_model.types import Policy

_KEPT_PERIODS = 150
_KEPT_INTERVENTIONS = 50
_CLOSE_S = 5.0

State = Literal["idle", "waiting", "driving", "judging"]
"""Waiting is for the policy's first answer, judging for a person's success flag."""


@dataclass(frozen=True, kw_only=True)
class Status:
    """The session's current state."""

    state: State = "idle"
    instruction: str = ""
    """Of the drive, or of the episode that is shown."""
    reading: Reading | None = None
    """The newest."""
    period: Period | None = None
    """The newest of this drive, or of the last one."""
    outcome: Outcome | None = None
    """Of the last drive."""
    recorded: str | None = None
    """Dataset of the last drive."""
    trouble: str | None = None
    """Why the last order failed."""
    num_orders: int = 0
    """Orders done so far; it distinguishes equal ones."""


class DriveSession:
    """One robot and one policy, for any number of drives."""

    def __init__(self, policy: Policy, robot: Robot, config: DriveConfig | None = None, close: Any = None) -> None:
        """
        Args:
            robot: not connected.
            close: called at the end, in the driving thread, to close the robot's world.

        Raises:
            UserError: the robot differs from the policy's; the message lists every difference.
        """
        self.takeover = Takeover(robot.spec)
        self._policy = policy
        self._robot = robot
        self._config = config
        self._agent = self._new_agent()
        self._close = close
        self._status = Status()
        self._lock = threading.Lock()
        self._busy = False
        self._periods: collections.deque[Period] = collections.deque(maxlen=_KEPT_PERIODS)
        self._interventions: collections.deque[Intervention] = collections.deque(maxlen=_KEPT_INTERVENTIONS)
        self._num_received = 0  # interventions received with a period
        self._marks: queue.SimpleQueue[bool | None] = queue.SimpleQueue()
        self._orders: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="driving", daemon=True)
        self._thread.start()

    @property
    def status(self) -> Status:
        return self._status

    def history(self) -> tuple[tuple[Period, ...], tuple[Intervention, ...]]:
        """The last periods and interventions of this drive, or of the last one."""
        with self._lock:
            return tuple(self._periods), tuple(self._interventions)

    @property
    def busy(self) -> bool:
        """Whether a drive is running."""
        return self._busy

    def show(self, episode: EpisodeSpec) -> None:
        """Show the initial state of an episode, for a simulated robot and while no drive is running."""
        self._orders.put(lambda: self._show(episode))

    def start(self, instruction: str, seconds: float, record: Path | None = None) -> None:
        """Drive, unless a drive is running. Arguments as for `Agent.run`; refusals are shown as the status' trouble."""
        try:
            self._agent.check_instruction(instruction)
        except UserError as refused:
            self._failed(str(refused))
            return
        with self._lock:
            if self._busy:
                return
            self._busy, self._agent = True, self._new_agent()
        self._status = replace(self._status, state="waiting", instruction=instruction, trouble=None)
        self._orders.put(lambda: self._drive(instruction, seconds, record))

    def stop(self, reason: str = "on the page") -> None:
        """Bring the robot to rest within one control period and end the drive."""
        self._agent.stop(reason)
        if self._status.state == "judging":
            self._marks.put(None)

    def mark(self, success: bool) -> None:
        """Set the success flag; a running drive ends with it."""
        if self._status.state == "judging":
            self._marks.put(success)
        elif self.busy:
            self._agent.stop("marked on the page", success=success)

    def close(self) -> None:
        """Stop, and end the thread."""
        self.stop("the page is closed")
        self._marks.put(None)  # ends a pending judgement
        self._orders.put(None)
        self._thread.join(_CLOSE_S)

    def _new_agent(self) -> Agent:
        """An agent for one drive, so that a stop before its first period applies to this drive only."""
        return Agent(self._policy, self._robot, config=self._config, operator=self.takeover, watcher=self._saw)

    def _work(self) -> None:
        while (order := self._orders.get()) is not None:
            try:
                order()
            except (UserError, OSError) as error:
                self._failed(str(error))
            except Exception as error:  # a bug: a message on the page, the traceback in the terminal
                traceback.print_exception(error)
                self._failed(repr(error))
            state: State = "waiting" if self._busy else "idle"  # another drive may have been started meanwhile
            self._status = replace(self._status, state=state, num_orders=self._status.num_orders + 1)
        if self._close is not None:
            self._close()

    def _failed(self, trouble: str) -> None:
        self._status = replace(self._status, trouble=trouble)

    def _show(self, episode: EpisodeSpec) -> None:
        robot: Any = self._robot
        robot.episode = episode
        robot.connect()
        self._status = Status(
            state="idle",
            instruction=robot.instruction,
            reading=robot.observe(),
            num_orders=self._status.num_orders,
        )

    def _drive(self, instruction: str, seconds: float, record: Path | None) -> None:
        with self._lock:
            self._periods.clear()
            self._interventions.clear()
        self.takeover.give_back()
        self._marks, self._num_received = queue.SimpleQueue(), 0
        try:
            outcome = self._agent.run(instruction, seconds, record=record, judge=self._judge)
        finally:
            self.takeover.give_back()
            self._busy = False
        with self._lock:
            self._interventions.extend(outcome.interventions[self._num_received :])  # after the last period
        recorded = str(record) if record is not None and outcome.num_steps else None
        self._status = replace(self._status, outcome=outcome, recorded=recorded)

    def _judge(self, outcome: Outcome) -> bool | None:
        """The robot's success flag, or where it has none a person's."""
        if outcome.success is not None or not outcome.num_steps:
            return outcome.success
        self._status = replace(self._status, state="judging", outcome=outcome)
        return self._marks.get()

    def _saw(self, period: Period) -> None:
        with self._lock:
            self._periods.append(period)
            self._interventions.extend(period.interventions)
        self._num_received += len(period.interventions)
        self._status = replace(self._status, state="driving", reading=period.reading, period=period)
