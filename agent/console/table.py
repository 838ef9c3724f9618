"""The simulated table behind the page: a SimRobot that another thread may observe and disturb.

    driving thread                                   page's thread
      applies pushes and drags, takes its steps        reads poses at any time,
      stores the new state ──────────────────────►     interpolated between the two newest states
      reads pushes and drags ◄───────────────────      stores them

Who waits: both threads only for a lock around short copies. Objects can be disturbed during a drive; before and after,
the simulation is paused.

Shape letters: N worlds, A action dims.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.robot.robots.sim_robot import SimRobot
from envs.arrays import to_numpy
from envs.tabletop.view import ExternalForces, Poses, TableScene
from envs.tabletop.world import TabletopWorld
from envs.types import EpisodeSpec, Observation
from vla_model.types import ActionChunk

_PUSH_M_S = 1.0
"""Change of velocity; with friction an object slides for some 8 cm."""
_EXPERT_MOVES = 3
"""How often the scripted expert's action is repeated in a chunk: it gives an action for the current state only."""


class LiveTable(SimRobot):
    """SimRobot of a tabletop world that can be viewed and disturbed."""

    def __init__(self, world: TabletopWorld, episode: EpisodeSpec) -> None:
        """A robot that begins `episode` when it is connected."""
        super().__init__(world, episode)
        self.lock = threading.RLock()
        """Held while the world moves."""
        self.scene: TableScene | None = None
        """Of the current or last episode; a new object for every episode."""
        self.tabletop = world
        self._forces = ExternalForces(world)
        self._states: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None  # the last two
        self._moved_s = 0.0
        self._poses: tuple[Poses, Poses] | None = None  # of those states, for the page's thread
        self._drags: dict[int, NDArray[np.float64]] = {}
        self._pushes: dict[int, NDArray[np.float64]] = {}

    def push(self, thing: str, direction: NDArray[np.float64]) -> None:
        """Push an object along the unit vector [3], in the next control period. From any thread."""
        with self.lock:
            body = self._body(thing)
            self._pushes[body] = self._pushes.get(body, np.zeros(3)) + _PUSH_M_S * direction

    def drag(self, thing: str, target: NDArray[np.float64] | None) -> None:
        """Drag an object towards a position [3] in the world from now on, or release it. From any thread."""
        with self.lock:
            if target is None:
                self._drags.pop(self._body(thing), None)
            else:
                self._drags[self._body(thing)] = target

    def poses(self) -> Poses:
        """Poses of one control period ago, interpolated between the two newest states. For the page's thread only."""
        with self.lock:
            assert self.scene is not None and self._states is not None, "an episode has begun"
            scene, states, moved_s = self.scene, self._states, self._moved_s
            if self._poses is None:
                self._poses = scene.poses(states[0]), scene.poses(states[1])
            before, after = self._poses
        share = (time.monotonic() - moved_s) / self.spec.world.control_dt_s
        return before.towards(after, min(1.0, share))

    def _begin(self) -> dict[str, Any]:
        with self.lock:
            fields = super()._begin()
            self._drags.clear()
            self._pushes.clear()
            self.scene = TableScene(self.tabletop)
            self._states = self._forces.state(), self._forces.state()
            self._poses = None
        return fields

    def _steps(self, actions: NDArray[np.float32]) -> dict[str, Any]:
        with self.lock:
            assert self._states is not None
            self._forces.apply(self._drags, self._pushes)
            self._pushes.clear()
            fields = super()._steps(actions)
            self._forces.apply({}, {})
            self._states, self._moved_s = (self._states[1], self._forces.state()), time.monotonic()
            self._poses = None
        return fields

    def _body(self, thing: str) -> int:
        assert self.scene is not None, "an episode has begun"
        return self.scene.things[thing]


class TableExpert:
    """Policy that repeats the scripted expert's action for the current state of the table."""

    version = -1

    def __init__(self, table: LiveTable) -> None:
        self._table = table

    def begin(self, worlds: Sequence[int], instructions: tuple[str, ...], seeds: tuple[int, ...]) -> None:
        """Nothing to prepare: the expert takes the task from the world, not from the instruction."""

    def act(self, worlds: Sequence[int], observation: Observation) -> ActionChunk:
        del worlds, observation  # the expert reads the world's state
        with self._table.lock:
            action = to_numpy(self._table.tabletop.expert_action())  # [1, A]
        return ActionChunk(actions=np.repeat(action[:, None], _EXPERT_MOVES, axis=1))
