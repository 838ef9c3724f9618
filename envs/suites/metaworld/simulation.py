"""One Meta-World environment, in its own process and interpreter.

Every episode begins in a new environment object on a copy of its task's compiled model: Meta-World writes goals into
the model and keeps values of the last episode, so a reused environment would begin differently from a new one. Object
and goal are sampled by `env.seed(seed); env.reset()`, as in LeRobot since 0.6.

After `reset` the sites, and in some tasks the bodies, keep their old positions until the first step. So kinematics are
recomputed before anything is read or rendered.

Shape letters: L localization dims.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from typing import Any

import mujoco
import numpy as np
from metaworld.env_dict import ALL_V3_ENVIRONMENTS
from metaworld.policies import ENV_POLICY_MAP
from numpy.typing import NDArray

from envs.simulation.bad_numbers import has_bad_numbers
from envs.suites.hosted.simulation import Moved, StepwiseSimulation
from envs.suites.metaworld import tasks
from envs.suites.metaworld.rendering import render, renderer_of
from envs.suites.metaworld.sensor import CAMERA, CAMERA_POS_M, Sensor
from envs.types import EpisodeSpec

_SECOND = slice(11, 14)
"""The second object's position in an observation; zeros in tasks without one."""

# The experts' gains are high by design; Meta-World warns about it at every step.
warnings.filterwarnings("ignore", message="Constant.s. may be too high")


class Simulation(StepwiseSimulation):
    """Meta-World's HostedSimulation."""

    def __init__(self, sensor: dict[str, Any], max_steps: int) -> None:
        """
        Args:
            sensor: the views to render, as `Sensor.of` reads them.
            max_steps: step limit of an episode.
        """
        self._sensor = Sensor.of(sensor)
        self._max_steps = max_steps
        self._cameras = self._sensor.cameras
        self._renderer = renderer_of(self._sensor)
        self._task = ""
        self._model: Any = None
        """The task's compiled model, which is copied and never simulated."""
        self._env: Any = None
        self._observation = np.zeros(39)
        self._num_steps = 0

    def begin(self, spec: EpisodeSpec) -> str:
        if spec.task != self._task:
            self._task, self._model = spec.task, _compile(spec.task)
            self._renderer.load(self._model)
        env = self._env = _environment(spec.task, self._model)
        env.seed(spec.seed)
        env.reset()
        mujoco.mj_forward(env.model, env.data)
        now = env._get_curr_obs_combined_no_goal()
        self._observation = np.hstack((now, now, env._get_pos_goal()))
        env._prev_obs = now
        self._num_steps = 0
        return tasks.instruction(spec.task, spec.variation)

    def move(self, action: list[float]) -> Moved:
        """Its reward term "dense" is the suite's own reward, in [0, 1]."""
        observation, reward, _, _, info = self._env.step(np.array(action, np.float32))
        self._num_steps += 1
        if has_bad_numbers(self._env.data) or not np.isfinite(observation).all():
            return Moved(failure="non-finite physics", rewards={"dense": 0.0})
        self._observation = observation
        return Moved(success=bool(info["success"]), rewards={"dense": float(reward) / 10.0})

    def reached_step_limit(self) -> bool:
        return self._num_steps >= self._max_steps

    def state(self) -> list[float]:
        return self._observation[:4].tolist()

    def expert_action(self) -> list[float]:
        action = ENV_POLICY_MAP[self._task]().get_action(self._observation)
        return np.clip(action, -1.0, 1.0).tolist()

    def _things(self) -> NDArray[np.float64]:
        """Positions of THINGS, [3, 3]."""
        thing, second = self._observation[4:7], self._observation[_SECOND]
        return np.stack((thing, second if second.any() else thing, self._env._get_pos_goal()))

    def localization(self) -> list[float]:
        things = self._things()
        in_frames = [camera.project(things) for camera in self._cameras]
        return np.concatenate([part.ravel() for part in (things, *in_frames)]).tolist()

    def render(self, frames: Sequence[NDArray[np.uint8]]) -> None:
        for view, frame in zip(self._sensor.views, frames, strict=True):
            render(self._renderer, self._env.model, self._env.data, view, frame)


def _compile(task: str) -> mujoco.MjModel:
    """The task's model, with the published camera."""
    model = ALL_V3_ENVIRONMENTS[task]().model
    model.camera(CAMERA).pos = CAMERA_POS_M
    return model


def _environment(task: str, model: mujoco.MjModel) -> Any:
    """A new environment on a copy of that model; its goal is sampled at reset and visible to the expert."""
    kind = ALL_V3_ENVIRONMENTS[task]
    env: Any = kind.__new__(kind)
    own = copy.copy(model)
    env._initialize_simulation = lambda: (own, mujoco.MjData(own))
    env.__init__()
    del env._initialize_simulation  # else the model is kept until garbage collection
    env._set_task_called = True
    env._freeze_rand_vec = False
    env.seeded_rand_vec = True
    env._partially_observable = False
    del env.sawyer_observation_space  # cached, with a goal of zeros
    return env
