"""SimRobot: any World with one world as a robot in real time.

The world takes one step per control period. `observe` and `act` run the steps that are due by the clock, in the driving
thread. A period without an action is a step at rest, as on a real arm. Time begins with the first action, so that
nothing happens while a policy is loaded.

Period n lasts from (n - 1/2) dt to (n + 1/2) dt after the first action, so that actions sent every dt, slightly early
or late, fall into consecutive periods.

Shape letters: k periods, A action dims.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.robot.clock import Clock, WallClock
from agent.robot.robots.tabletop import axes_of, watched_of
from agent.robot.types import Axis, Reading, RobotSpec
from envs.arrays import to_numpy
from envs.errors import UserError
from envs.types import Array, EpisodeSpec, Observation
from envs.world import World


class SimRobot:
    """Robot of agent/robot/types.py that wraps any World with one world, e.g. a gymnasium environment by envs/suites.

    Examples:
        >>> from envs.make import make_world
        >>> robot = SimRobot(make_world("tabletop"), EpisodeSpec(suite="tabletop", task="pick_place", seed=1_000_000))
        >>> robot.connect()
        >>> robot.instruction
        'pick up the blue cylinder and put it in the red bowl'
    """

    def __init__(self, world: World, episode: EpisodeSpec, *, clock: Clock | None = None) -> None:
        """A robot that begins `episode` when it is connected.

        Args:
            world: with one world; the caller closes it.
            episode: may be replaced before every `connect`.

        Raises:
            UserError: several worlds.
        """
        if world.num_envs != 1:
            raise UserError(f"a robot is one world, this one has {world.num_envs}")
        arm, num_actions = world.arm, world.world_spec.action.size
        axes = axes_of(arm) if arm else (Axis(relative=True),) * num_actions
        watched = watched_of(arm) if arm else ()
        self.spec = RobotSpec(name=world.suite, world=world.world_spec, axes=axes, watched=watched)
        self.episode = episode
        self._world = world
        self._clock = clock or WallClock()
        self._rewind()

    def _rewind(self) -> None:
        self._reading: Reading | None = None
        self._began_s: float | None = None  # the time of the first action
        self._period = 0
        self._pending: NDArray[np.float32] | None = None
        self._last = np.zeros(len(self.spec.axes), np.float32)

    @property
    def instruction(self) -> str:
        """The episode's instruction, once connected."""
        return self._instruction

    def connect(self) -> None:
        """Begin the episode."""
        self._rewind()
        self._show(self._begin())

    def observe(self) -> Reading:
        """The current reading.

        Raises:
            ConnectionError: not connected.
        """
        self._catch_up()
        assert self._reading is not None
        return self._reading

    def act(self, action: NDArray[np.float32]) -> NDArray[np.float32]:
        """Execute an action [A] in this period.

        Raises:
            ConnectionError: not connected.
        """
        if self._began_s is None:
            self._began_s = self._clock.now_s()
        self._catch_up()
        self._pending = self._last = action.clip(-1.0, 1.0)  # the simulator takes no others
        return self._last

    def stop(self) -> None:
        """Rest, from the current period on."""
        self._pending = None

    def disconnect(self) -> None:
        """End the episode's readings."""
        self._reading = None

    def _catch_up(self) -> None:
        """Take the steps that are due, and update the reading's time."""
        if self._reading is None:
            raise ConnectionError(f"{self.spec.name} is not connected")
        due = 0
        if self._began_s is not None:
            now = math.floor((self._clock.now_s() - self._began_s) / self.spec.world.control_dt_s + 0.5)
            due, self._period = now - self._period, now
        if due and self._reading.ended is None:
            rest = np.where(self.spec.relative, 0.0, self._last).astype(np.float32)
            first = rest if self._pending is None else self._pending
            self._show(self._steps(np.stack([first, *[rest] * (due - 1)])))
            self._pending = None
        self._reading = dataclasses.replace(self._reading, time_s=self._clock.now_s())

    def _begin(self) -> dict[str, Any]:
        """Begin the episode; returns the fields of its first Reading but the time."""
        observation, info = self._world.reset_to((self.episode,), (0,))
        self._instruction = observation["instruction"][0]
        return _reading_fields(observation, info["localization"])

    def _steps(self, actions: NDArray[np.float32]) -> dict[str, Any]:
        """Take k steps [k, A], fewer if the episode ends; returns the fields of a Reading but the time."""
        result = self._world.step_chunk(actions[None])
        fields = _reading_fields(result.observation, result.localization[:, -1])
        if not result.done[0]:
            return fields
        return fields | {"success": bool(result.success[0]), "ended": result.outcome[0]}

    def _show(self, fields: dict[str, Any]) -> None:
        self._reading = Reading(**fields, time_s=self._clock.now_s())


def _reading_fields(observation: Observation, localization: Array) -> dict[str, Any]:
    return {
        "frames": {name: to_numpy(frame)[0] for name, frame in observation["frames"].items()},
        "state": to_numpy(observation["state"])[0],
        "localization": to_numpy(localization)[0],
        "success": False,
    }
