"""Episodes of LIBERO in a world's process: simulation, frames, labels and the expert of one task at a time.

Shape letters: L localization dims.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError
from envs.suites.hosted.rendering import FrameRenderer
from envs.suites.hosted.simulation import Moved, StepwiseSimulation
from envs.suites.libero.expert import Expert
from envs.suites.libero.memory import compile_without_cache, forget_last_model, forget_textures
from envs.suites.libero.sensor import CAMERAS, Sensor, projection_of
from envs.suites.libero.simulation import Simulation
from envs.suites.libero.tasks import MUJOCO, published_sentence, scene_number
from envs.types import CameraSpec, EpisodeSpec


class Episodes(StepwiseSimulation):
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

    def __init__(self, *, sensor: dict[str, Any], any_mujoco: bool, published_sentences: bool = False) -> None:
        """
        Args:
            sensor: as `Sensor.of` reads it.
            any_mujoco: accept another version of MuJoCo.
            published_sentences: give those of published evaluations, where they have one, and not the BDDL files'.
        """
        del any_mujoco
        self._published_sentences = published_sentences
        self._sensor = Sensor.of(sensor)
        side = self._sensor.rendered_px
        self._renderer = FrameRenderer(side, side, self._sensor.quality, _visible())
        self._loaded: tuple[str, str, int] | None = None
        self._simulation: Any = None
        self._expert: Any = None

    def begin(self, spec: EpisodeSpec) -> str:
        wanted = (spec.task, spec.variation, scene_number(spec.variation, spec.seed))
        if wanted != self._loaded:
            self._load(*wanted)
        self._simulation.begin(spec.seed)
        self._expert.begin()
        published = published_sentence(spec.task, spec.variation) if self._published_sentences else None
        return published or self._simulation.scene.instruction

    def move(self, action: list[float]) -> Moved:
        success = self._simulation.step(np.array(action))
        if self._simulation.is_broken:
            return Moved(failure="non-finite physics")
        return Moved(success=success)

    def reached_step_limit(self) -> bool:
        return self._simulation.num_steps >= self._simulation.scene.horizon

    def state(self) -> list[float]:
        return np.nan_to_num(self._simulation.state).tolist()

    def expert_action(self) -> list[float]:
        return self._expert.action().tolist()

    def _load(self, task: str, variation: str, number: int) -> None:
        self._simulation = self._expert = None
        forget_last_model()
        self._loaded = None
        self._simulation = Simulation(task, variation, number)
        self._expert = Expert(self._simulation)
        forget_last_model()
        self._renderer.load(self._simulation.model)
        forget_textures(self._simulation.model)
        self._loaded = (task, variation, number)

    def localization(self) -> list[float]:
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

    def render(self, frames: Sequence[NDArray[np.uint8]]) -> None:
        side = self._sensor.rendered_px
        whole = mujoco.MjrRect(0, 0, side, side)
        for camera, frame in zip(CAMERAS.values(), frames, strict=True):
            pixels = self._renderer.render(
                self._simulation.model, self._simulation.data, camera, whole, (side, side, 3)
            )
            frame[:] = self._sensor.reduced(pixels[::-1, ::-1])


def _visible() -> mujoco.MjvOption:
    """What robosuite shows: visual geoms, no collision geoms."""
    option = mujoco.MjvOption()
    option.geomgroup[:] = 0
    option.geomgroup[1] = 1
    return option
