"""GymRobot: any gymnasium environment with pixels as a robot.

Shape letters: k periods, A action dims, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.robot.clock import Clock
from agent.robot.robots.stepped import SteppedRobot
from agent.robot.types import Axis, RobotSpec
from envs.errors import UserError
from envs.suites.given import verdict_of
from envs.suites.spaces import ActionBox, unnamed_vector
from envs.types import CameraSpec, VectorSpec, WorldSpec


class GymRobot(SteppedRobot):
    """Any gymnasium environment with pixels and a Box of actions, in real time.

    Observations are an image, or a dict with LeRobot's keys: "pixels" (an image, or {camera: image}) and perhaps
    "agent_pos" (the state); a lone image is the camera "image". Actions in [-1, 1] are stretched over the Box.
    info["is_success"], where there is one, is the verdict.
    """

    def __init__(
        self,
        env: Any,
        *,
        name: str,
        control_dt_s: float,
        axes: Sequence[Axis] | None = None,
        seed: int | None = None,
        clock: Clock | None = None,
    ) -> None:
        """A robot that resets the environment when it is connected.

        Args:
            env: a gymnasium.Env; whoever made it closes it.
            name: robot_type of recordings.
            control_dt_s: time between two of its steps.
            axes: of the action; displacements without limits where None.
            seed: of the next episode; it may be set anew before every `connect`.
            clock: the machine's where None.

        Raises:
            UserError: no pixels, or actions that are not a flat Box with bounds.
        """
        self._actions = ActionBox(env.action_space)
        world = _world_spec(env, self._actions.spec, control_dt_s)
        axes = tuple(axes or (Axis(relative=True),) * world.action.size)
        super().__init__(RobotSpec(name=name, world=world, axes=axes), clock)
        self.seed = seed
        self._env = env

    def _begin(self) -> dict[str, Any]:
        observation, info = self._env.reset(seed=self.seed)
        return self._seen(observation, info)

    def _steps(self, actions: NDArray[np.float32]) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        for action in actions:
            observation, _, terminated, truncated, info = self._env.step(self._actions.stretch(action))
            fields = self._seen(observation, info)
            if terminated or truncated:
                fields["ended"] = "success" if fields["success"] else "ended" if terminated else "step limit"
                break
        return fields

    def _seen(self, observation: Any, info: Mapping[str, Any]) -> dict[str, Any]:
        parts = observation if isinstance(observation, dict) else {"pixels": observation}
        success = info.get("is_success")
        return {
            "frames": _by_camera(parts["pixels"]),
            "state": np.asarray(parts.get("agent_pos", ()), np.float32),
            "success": None if success is None else verdict_of("is_success", success),
        }


def _world_spec(env: Any, action: VectorSpec, control_dt_s: float) -> WorldSpec:
    """What an environment's spaces say."""
    space = env.observation_space
    spaces = getattr(space, "spaces", {"pixels": space})
    pixels = _by_camera(getattr(spaces.get("pixels"), "spaces", spaces.get("pixels")))
    wrong = [
        name for name, image in pixels.items() if image is None or image.dtype != np.uint8 or len(image.shape) != 3
    ]
    if wrong:
        raise UserError(f"pixels must be uint8 images [H, W, 3], got {space}; a PixelObservation wrapper adds them")
    state = spaces.get("agent_pos")
    return WorldSpec(
        cameras=tuple(
            CameraSpec(name=name, height=image.shape[0], width=image.shape[1]) for name, image in pixels.items()
        ),
        state=unnamed_vector("state", "1", *((state.low, state.high) if state is not None else ((), ()))),
        action=action,
        localization=unnamed_vector("", "", (), ()),
        control_dt_s=control_dt_s,
    )


def _by_camera(pixels: Any) -> dict[str, Any]:
    return dict(pixels) if isinstance(pixels, Mapping) else {"image": pixels}
