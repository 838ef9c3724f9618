"""A world of the user's own in another interpreter: this side runs there, function_world.py in ours.

Each process has a World of one, made by the user's function, so the environment is checked, guarded and reset as in
our own interpreter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.arrays import to_numpy
from envs.imported import imported
from envs.simulation.gl import choose_backend
from envs.suites.hosted.simulation import HostedSimulation
from envs.suites.own import own_world
from envs.types import EpisodeSpec, Observation

REWARD = "environment"
"""The only reward term: the world's own reward."""


class FunctionSimulation(HostedSimulation):
    """HostedSimulation of MODULE:FUNCTION; answers one request more, {"do": "describe"}."""

    @classmethod
    def prepare(cls, arguments: Mapping[str, Any]) -> None:
        choose_backend()  # before the module imports MuJoCo, which reads the variable once
        imported("world", arguments["function"])

    def __init__(self, function: str) -> None:
        """function: MODULE:FUNCTION.

        Raises:
            UserError: see `own_world`.
        """
        self._world = own_world(function, 1)

    def answer(self, request: dict[str, Any], frames: Sequence[NDArray[np.uint8]]) -> dict[str, Any]:
        if request["do"] == "describe":
            return self._describe()
        if request["do"] == "expert":
            return {"expert": to_numpy(self._world.expert_action())[0].tolist()}
        if request["do"] == "begin":
            return self._begin(EpisodeSpec(**request["spec"]), frames)
        return self._step(request["actions"], frames, render_ended=request["render_ended"])

    def _describe(self) -> dict[str, Any]:
        world = self._world
        return {
            "world_spec": asdict(world.world_spec),
            "suite": world.suite,
            "variations": {task: world.variations_of(task) for task in world.tasks},
            "task_groups": world.task_groups,
        }

    def _begin(self, spec: EpisodeSpec, frames: Sequence[NDArray[np.uint8]]) -> dict[str, Any]:
        observation, info = self._world.reset_to([spec], [0])
        if (broken := info.get("broken", {}).get(0)) is not None:
            return {"broken": broken}
        self._show(observation, frames)
        return {
            "state": to_numpy(observation["state"])[0].tolist(),
            "localization": to_numpy(info["localization"])[0].tolist(),
            "instruction": observation["instruction"][0],
        }

    def _step(
        self, actions: list[list[float]], frames: Sequence[NDArray[np.uint8]], *, render_ended: bool
    ) -> dict[str, Any]:
        result = self._world.step_chunk(np.array([actions], np.float32), ended_frames=render_ended)
        self._show(result.observation, frames)
        count = int(result.num_steps[0])
        return {
            "states": to_numpy(result.states)[0, :count].tolist(),
            "localization": to_numpy(result.localization)[0, :count].tolist(),
            "rewards": {REWARD: to_numpy(result.reward)[0, :count].tolist()},
            "success": bool(result.success[0]),
            "truncated": bool(result.truncated[0]),
            "failure": result.failure[0],
            **({"broken": result.failure[0]} if 0 in result.broken else {}),
        }

    def _show(self, observation: Observation, frames: Sequence[NDArray[np.uint8]]) -> None:
        for camera, shared in zip(self._world.world_spec.cameras, frames, strict=True):
            np.copyto(shared, to_numpy(observation["frames"][camera.name])[0], casting="no")
