"""One LIBERO task as a simulation at 20 Hz: states, actions and success, without cameras.

It equals the suite's own environment as published evaluations drive it, set to an initial state and stepped, except for
rounding.
"""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import numpy as np
from numpy.typing import NDArray
from robosuite.utils.transform_utils import convert_quat, quat2axisangle

from envs.errors import UserError
from envs.simulation.bad_numbers import has_bad_numbers
from envs.suites.libero.control import Controller
from envs.suites.libero.scene import InitialState, Scene
from envs.suites.libero.tasks import RESTYLED, SETTLE_STEPS, TRAIN, WIDE
from envs.suites.libero.wide.restyled import RestyledScene
from envs.suites.libero.wide.scene import WideScene

_SETTLE = np.array([0.0] * 6 + [-1.0])
MOST_ATTEMPTS = 50
"""States that may be drawn for an episode."""


class Simulation:
    """A task that episodes run in, one after the other."""

    def __init__(self, task: str, variation: str = TRAIN, number: int = 0) -> None:
        """Compile the task.

        Args:
            task: a name in tasks.SUITES.
            variation: one of tasks.variations_of(task).
            number: tasks.scene_number of the seeds that it will run.
        """
        self.scene = _compiled(task, variation, number)
        self.model, self.data = self.scene.model, self.scene.data
        self._to_rest()
        self.controller = Controller(self.model, self.data)
        self._hand = self.model.body("robot0_right_hand").id
        self.num_steps = 0
        """Actions since the settling ended."""
        self.success = False
        """The suite's own flag after the last action."""
        self.last_action = _SETTLE
        """The action executed last, [7]: the expert plans anew when it was not its own."""

    def begin(self, seed: int) -> None:
        """Begin the episode of a seed, after the settling steps.

        The same task, variation and seed give the same state, bit for bit, whatever was simulated before.

        Raises:
            UserError: no state that the scene drew is fair, or see Scene.initial_state.
        """
        for attempt in range(MOST_ATTEMPTS):
            start = self.scene.initial_state(seed, attempt)
            self._settle(start)
            if self.scene.is_fair(start):
                break
        else:
            raise UserError(
                f"none of {MOST_ATTEMPTS} initial states of {self.scene.task}, variation {self.scene.variation}, "
                f"seed {seed} is fair; leave the seed or the task out"
            )
        self.num_steps = 0

    def _settle(self, start: InitialState) -> None:
        """Set a state and execute the settling steps."""
        model, data = self.model, self.data
        mujoco.mj_resetData(model, data)
        model.body_pos[:], model.body_quat[:] = start.body_pos, start.body_quat
        data.qpos[:], data.qvel[:] = start.qpos, start.qvel
        mujoco.mj_forward(model, data)
        self.controller.begin()
        self.scene.show_switches()
        for _ in range(SETTLE_STEPS):
            self.step(_SETTLE)

    def step(self, action: NDArray[np.floating]) -> bool:
        """Execute an action, float [7] in [-1, 1]: control.py's units, then the gripper, closing above 0.

        Returns:
            success, by contacts and positions before the last physics step, as in the suite.
        """
        self.controller.step(action)
        self.last_action = np.array(action, dtype=np.float64)
        self.num_steps += 1
        self.success = self.scene.succeeded()
        self.scene.show_switches()
        return self.success

    def holds(self, predicate: Sequence[str]) -> bool:
        """Whether one of the suite's predicates holds now, e.g. ("open", "wooden_cabinet_1_middle_region")."""
        return self.scene.holds(predicate)

    @property
    def is_broken(self) -> bool:
        """Whether the physics are no longer finite."""
        return has_bad_numbers(self.data) or not np.isfinite(self.data.qpos).all()

    @property
    def hand_pos_m(self) -> NDArray[np.float64]:
        """Position of the grip site between the fingertips, [3]."""
        return self.controller.pos_m

    @property
    def hand_axes(self) -> NDArray[np.float64]:
        """Rotation of the grip site, [3, 3]: its columns are the closing direction, y, and the approach direction."""
        return self.controller.axes

    @property
    def fingers_m(self) -> NDArray[np.float64]:
        """Joint positions of the fingers, [2]."""
        return self.data.qpos[self.controller.finger_qpos]

    @property
    def state(self) -> NDArray[np.float64]:
        """Proprioception as in published evaluations, [8]: position of the grip site, rotation vector of the hand's
        body, fingers.

        The angle is from 0 to 2 pi, because robosuite does not identify a quaternion with its negative. Policies
        trained on the suite's demonstrations need that.
        """
        turn_rad = quat2axisangle(convert_quat(self.data.xquat[self._hand], to="xyzw"))
        return np.concatenate((self.hand_pos_m, turn_rad, self.fingers_m))

    @property
    def things_m(self) -> NDArray[np.float64]:
        """Positions of sensor.THINGS, [4, 3]."""
        scene = self.scene
        named = []
        to_place_first = sorted(scene.goal, key=len, reverse=True)
        for _, first, *others in to_place_first[:2]:
            points = [scene.point_m(first), scene.point_m(others[0])] if others else [scene.part_m(first)] * 2
            named.extend(points)
        return np.stack(named if len(named) == 4 else named * 2)

    def _to_rest(self) -> None:
        mujoco.mj_resetData(self.model, self.data)
        robot = self.scene.suite_env.robots[0]
        self.data.qpos[robot._ref_joint_pos_indexes] = robot.init_qpos
        mujoco.mj_forward(self.model, self.data)


def _compiled(task: str, variation: str, number: int) -> Scene:
    if variation == WIDE:
        return WideScene(task, number)
    return RestyledScene(task, number) if variation == RESTYLED else Scene(task, variation)
