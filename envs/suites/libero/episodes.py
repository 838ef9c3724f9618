"""Episodes of LIBERO in a world's process: simulation, frames, labels and the expert of one task at a time.

Shape letters: k actions, L localization dims.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError
from envs.suites.hosted.rendering import FrameRenderer
from envs.suites.hosted.simulation import HostedSimulation
from envs.suites.libero.expert import Expert
from envs.suites.libero.memory import compile_without_cache, forget_last_model, forget_textures
from envs.suites.libero.sensor import CAMERAS, Sensor, projection_of
from envs.suites.libero.simulation import Simulation
from envs.suites.libero.tasks import HORIZONS, MUJOCO, suite_of
from envs.types import CameraSpec


class Episodes(HostedSimulation):
    """LIBERO's HostedSimulation."""

    @classmethod
    def prepare(cls, arguments: Mapping[str, Any]) -> None:
        """
        Raises:
            UserError: MuJoCo has another version, and `any_mujoco` is false.
        """
        if mujoco.__version__ != MUJOCO and not arguments["any_mujoco"]:
            raise UserError(
                f"LIBERO's interpreter has MuJoCo {mujoco.__version__}, which changes physics and frames; expected "
                f"{MUJOCO}: make libero; or set LLAMARM_LIBERO_ANY_MUJOCO=1, and every result will name the version"
            )
        compile_without_cache()

    def __init__(self, *, sensor: dict[str, Any], any_mujoco: bool) -> None:
        """
        Args:
            sensor: as `Sensor.of` reads it.
            any_mujoco: accept another version of MuJoCo.
        """
        del any_mujoco
        self._sensor = Sensor.of(sensor)
        self._renderer = FrameRenderer(self._sensor.size_px, self._sensor.size_px, self._sensor.quality, _visible())
        self._loaded = ("", "")
        self._simulation: Any = None
        self._expert: Any = None

    def answer(self, request: dict[str, Any], frames: Sequence[NDArray[np.uint8]]) -> dict[str, Any]:
        if request["do"] == "begin":
            reply = self._begin(request["task"], request["variation"], request["seed"])
            self._render(frames)
            return reply
        if request["do"] == "expert":
            return {"expert": self._expert.action().tolist()}
        reply = self._step(request["actions"])
        ended = reply["success"] or reply["truncated"] or reply["failure"] is not None
        if request["render_ended"] or not ended:
            self._render(frames)
        return reply

    def _begin(self, task: str, variation: str, seed: int) -> dict[str, Any]:
        if (task, variation) != self._loaded:
            self._load(task, variation)
        self._simulation.begin(seed)
        self._expert.begin()
        return {
            "state": self._simulation.state.tolist(),
            "localization": self._localization(),
            "instruction": self._simulation.scene.instruction,
        }

    def _load(self, task: str, variation: str) -> None:
        self._simulation = self._expert = None
        forget_last_model()
        self._loaded = ("", "")
        self._simulation = Simulation(task, variation)
        self._expert = Expert(self._simulation)
        forget_last_model()
        self._renderer.load(self._simulation.model)
        forget_textures(self._simulation.model)
        self._loaded = (task, variation)

    def _step(self, actions: list[list[float]]) -> dict[str, Any]:
        simulation, horizon = self._simulation, HORIZONS[suite_of(self._loaded[0])]
        states, localization = [], []
        success = truncated = False
        failure = None
        for action in actions:
            success = simulation.step(np.array(action))
            if simulation.is_broken:
                success, failure = False, "non-finite physics"
            truncated = not success and failure is None and simulation.num_steps >= horizon
            states.append(np.nan_to_num(simulation.state).tolist())
            localization.append(self._localization())
            if success or truncated or failure is not None:
                break
        return {
            "states": states,
            "localization": localization,
            "rewards": {"success": [0.0] * (len(states) - 1) + [float(success)]},
            "success": success,
            "truncated": truncated,
            "failure": failure,
        }

    def _localization(self) -> list[float]:
        model, data = self._simulation.model, self._simulation.data
        things = np.nan_to_num(self._simulation.things_m)
        in_frames = []
        for name, of_suite in CAMERAS.items():
            camera = model.camera(of_suite).id
            axes = data.cam_xmat[camera].reshape(3, 3)
            projection = projection_of(data.cam_xpos[camera], axes, float(model.cam_fovy[camera]))
            frame = CameraSpec(name=name, height=1, width=1, projection=tuple(projection.ravel().tolist()))
            in_frames.append(frame.project(things))
        return np.concatenate([part.ravel() for part in (things, *in_frames)]).tolist()

    def _render(self, frames: Sequence[NDArray[np.uint8]]) -> None:
        whole = mujoco.MjrRect(0, 0, self._sensor.size_px, self._sensor.size_px)
        for camera, frame in zip(CAMERAS.values(), frames, strict=True):
            pixels = self._renderer.render(self._simulation.model, self._simulation.data, camera, whole, frame.shape)
            frame[:] = pixels[::-1, ::-1]


def _visible() -> mujoco.MjvOption:
    """What robosuite shows: visual geoms, no collision geoms."""
    option = mujoco.MjvOption()
    option.geomgroup[:] = 0
    option.geomgroup[1] = 1
    return option
