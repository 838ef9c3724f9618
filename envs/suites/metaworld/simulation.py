"""One Meta-World environment, in its own process and interpreter.

Every episode begins in a new environment object on a copy of its task's compiled model: Meta-World writes goals into
the model and keeps values of the last episode, so a reused environment would begin differently from a new one. Object
and goal are sampled by `env.seed(seed); env.reset()`, as in LeRobot since 0.6.

After `reset` the sites, and in some tasks the bodies, keep their old positions until the first step. So kinematics are
recomputed before anything is read or rendered.

Shape letters: k actions, L localization dims.
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

from envs.suites.hosted.simulation import HostedSimulation
from envs.suites.metaworld import tasks
from envs.suites.metaworld.rendering import render, renderer_of
from envs.suites.metaworld.sensor import CAMERA, CAMERA_POS_M, Sensor

_BROKEN = (
    mujoco.mjtWarning.mjWARN_BADQPOS.value,
    mujoco.mjtWarning.mjWARN_BADQVEL.value,
    mujoco.mjtWarning.mjWARN_BADQACC.value,
)
_SECOND = slice(11, 14)
"""The second object's position in an observation; zeros in tasks without one."""

# The experts' gains are high by design; Meta-World warns about it at every step.
warnings.filterwarnings("ignore", message="Constant.s. may be too high")


class Simulation(HostedSimulation):
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

    def answer(self, request: dict[str, Any], frames: Sequence[NDArray[np.uint8]]) -> dict[str, Any]:
        if request["do"] == "begin":
            reply = self._begin(request["task"], request["variation"], request["seed"])
            self._render(frames)
            return reply
        if request["do"] == "expert":
            action = ENV_POLICY_MAP[self._task]().get_action(self._observation)
            return {"expert": np.clip(action, -1.0, 1.0).tolist()}
        reply = self._step(request["actions"])
        ended = reply["success"] or reply["truncated"] or reply["failure"] is not None
        if request["render_ended"] or not ended:
            self._render(frames)
        return reply

    def _begin(self, task: str, variation: str, seed: int) -> dict[str, Any]:
        if task != self._task:
            self._task, self._model = task, _compile(task)
            self._renderer.load(self._model)
        env = self._env = _environment(task, self._model)
        env.seed(seed)
        env.reset()
        mujoco.mj_forward(env.model, env.data)
        now = env._get_curr_obs_combined_no_goal()
        self._observation = np.hstack((now, now, env._get_pos_goal()))
        env._prev_obs = now
        self._num_steps = 0
        instruction = tasks.instruction(task, variation)
        return {"state": self._state(), "localization": self._localization(), "instruction": instruction}

    def _step(self, actions: list[list[float]]) -> dict[str, Any]:
        states, localization, dense = [], [], []
        success = truncated = False
        failure = None
        for action in actions:
            reward, success, failure = self._move(np.array(action, np.float32))
            truncated = not success and failure is None and self._num_steps >= self._max_steps
            states.append(self._state())
            localization.append(self._localization())
            dense.append(reward)
            if success or truncated or failure is not None:
                break
        return {
            "states": states,
            "localization": localization,
            "rewards": {"success": [0.0] * (len(dense) - 1) + [float(success)], "dense": dense},
            "success": success,
            "truncated": truncated,
            "failure": failure,
        }

    def _move(self, action: NDArray[np.float32]) -> tuple[float, bool, str | None]:
        """One control step; returns the suite's own reward in [0, 1], success, and the reason if the episode failed."""
        observation, reward, _, _, info = self._env.step(action)
        self._num_steps += 1
        if any(self._env.data.warning[kind].number for kind in _BROKEN) or not np.isfinite(observation).all():
            return 0.0, False, "non-finite physics"
        self._observation = observation
        return float(reward) / 10.0, bool(info["success"]), None

    def _state(self) -> list[float]:
        return self._observation[:4].tolist()

    def _things(self) -> NDArray[np.float64]:
        """Positions of THINGS, [3, 3]."""
        thing, second = self._observation[4:7], self._observation[_SECOND]
        return np.stack((thing, second if second.any() else thing, self._env._get_pos_goal()))

    def _localization(self) -> list[float]:
        things = self._things()
        in_frames = [camera.project(things) for camera in self._cameras]
        return np.concatenate([part.ravel() for part in (things, *in_frames)]).tolist()

    def _render(self, frames: Sequence[NDArray[np.uint8]]) -> None:
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
