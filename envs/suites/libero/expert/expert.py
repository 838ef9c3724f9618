"""One scripted expert for every task of the suite: it reads the task's goal and the simulator's state.

The expert is a plan of motions (goals.py), not a map from states to actions. It plans from any state: at the first
call, when a skill ends, when a skill finds the state other than it counted on, and when somebody else moved the arm.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from typing import TYPE_CHECKING

import numpy as np

from envs.suites.libero.expert.goals import next_goal, skill
from envs.suites.libero.expert.motion import Action, Arm, Lost
from envs.suites.libero.expert.view import Goal, View

if TYPE_CHECKING:
    from envs.suites.libero.simulation import Simulation

MOST_ATTEMPTS = 6
"""Failures per goal before the expert gives up."""
MOST_SURPRISES = 60
"""Per episode, before the expert gives up."""
DRIFT, MOST_DRIFT = 0.9, 2.5
"""The share of differences between executed actions and the expert's that is kept per step, and the sum, in units of
actions (1.3 cm of motion), beyond which the arm is somewhere else than the plan has it."""


class Expert:
    """Acts in one simulation.

    Examples:
        >>> expert = Expert(simulation)
        >>> simulation.begin(seed)
        >>> expert.begin()
        >>> while not simulation.success and not expert.gave_up:
        ...     simulation.step(expert.action())
    """

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._view = View(simulation)
        self.begin()

    def begin(self) -> None:
        """Forget the episode before."""
        self.gave_up = False
        """Whether it failed too often to go on; the hand then stays where it is."""
        self.log: list[str] = []
        """What was tried in this episode and how it ended, for people."""
        self._attempts: Counter[Goal] = Counter()
        self._surprises = 0
        self._plan: Generator[Action, None, None] | None = None
        self._asked: tuple[int, Action] | None = None
        """Number of the step after the last action, and that action."""
        self._drift = np.zeros(6)

    def action(self) -> Action:
        """The action for the state as it is, [7] in [-1, 1]. Does not step the simulation."""
        if self._plan is None or self._interrupted():
            self._plan = self._steps(Arm(self._view))
            self._drift = np.zeros(6)
        action = np.clip(next(self._plan), -1.0, 1.0)
        self._asked = self._simulation.num_steps + 1, action
        return action.copy()

    def _interrupted(self) -> bool:
        """Whether somebody else acted since the last call: other steps, another grip, or another way for a while.

        Noise in executed actions is no reason: motions are closed-loop.
        """
        if self._asked is None:
            return True
        step, asked = self._asked
        executed = self._simulation.last_action
        self._drift = DRIFT * self._drift + (executed - asked)[:6]
        grip = (executed[6] > 0) != (asked[6] > 0)
        return self._simulation.num_steps != step or grip or bool(np.linalg.norm(self._drift) > MOST_DRIFT)

    def _steps(self, arm: Arm) -> Generator[Action, None, None]:
        """Skill after skill until all goals hold; then, and after giving up, the hand stays where it is."""
        if self._view.held() is not None:
            arm.command = 1.0
        while not self.gave_up:
            goal = next_goal(self._view)
            if goal is None:
                yield arm.toward(self._view.hand)
                continue
            before = self._simulation.num_steps
            try:
                done = yield from skill(arm, goal, self._attempts[goal])
                end = "done" if done else "failed"
                self._attempts[goal] += not done
            except Lost as lost:
                end = str(lost)
                self._surprises += 1
            if self._simulation.num_steps == before:  # nothing was tried: the next attempt needs another state
                yield arm.toward(self._view.hand)
            self.log.append(f"{self._simulation.num_steps} {' '.join(goal)}: {end}")
            self.gave_up = self._attempts[goal] >= MOST_ATTEMPTS or self._surprises >= MOST_SURPRISES
        while True:
            yield arm.toward(self._view.hand)
