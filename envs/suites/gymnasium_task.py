"""GymnasiumTask: the class that a user writes for a gymnasium environment (docs/your_task.md).

Shape letters: S state dims, H x W pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import ArrayLike

from envs.suites.returned import Frames, WorldError, kind_of
from envs.types import EpisodeSpec

Env = gymnasium.Env[Any, Any]


class GymnasiumTask(ABC):
    """One task: makes its environment and defines the observations of a policy and the success flag.

    All worlds share it, so it must not store anything about an episode.
    """

    max_steps: int | None = None
    """The step limit; None uses that of the environment's registration."""
    variations: tuple[str, ...] = ("train",)
    """Variations that an episode may have; `reset` gets the episode's in its spec."""
    grippers: tuple[int, ...] = ()
    """Indices of action elements that command a gripper, closing above 0; expert noise is not added to them."""
    position: tuple[int, ...] = ()
    """Indices of the three state elements that are the hand's x, y and z in metres, if any."""
    places: tuple[tuple[str, str, str], ...] = ()
    """(camera, u, v): names of two labels that hold image coordinates in that camera's frame, u to the right, v down,
    -1 and 1 at the edges. Other labels are positions in metres."""

    @abstractmethod
    def make_env(self) -> Env:
        """A new environment, e.g. from gymnasium.make."""

    @abstractmethod
    def instruction(self, env: Env) -> str:
        """The instruction of the current episode."""

    def reset(self, env: Env, spec: EpisodeSpec) -> tuple[Any, dict[str, Any]]:
        """Begin the episode of a spec; returns (observation, info) as env.reset does."""
        return env.reset(seed=spec.seed)

    def frames(self, env: Env) -> Frames:
        """The current RGB frames, {camera: uint8 [H, W, 3]}; by default env.render() as the camera "image"."""
        picture = env.render()
        if picture is None:
            raise WorldError(
                "env.render() gave None; make the environment with render_mode='rgb_array', "
                f"or write frames(self, env) in {type(self).__name__}"
            )
        return {"image": np.asarray(picture)}

    def state(self, env: Env, observation: Any) -> ArrayLike:
        """Proprioception, [S]; by default observation["agent_pos"], as in LeRobot's environments."""
        del env
        return self._entry("the observation", observation, "agent_pos", "state(self, env, observation)")

    def success(self, env: Env, info: dict[str, Any]) -> bool:
        """The success flag after a step, a bool or an array of one; True ends the episode."""
        del env
        return self._entry("info of a step", info, "is_success", "success(self, env, info)")

    def labels(self, env: Env) -> Mapping[str, float]:
        """Privileged labels by name (positions of things), for training only, never policy inputs; empty by default."""
        del env
        return {}

    def expert_action(self, env: Env, observation: Any) -> ArrayLike:
        """A scripted expert's action, as env.step takes it. It must depend only on the current state, which may be any.

        Raises:
            NotImplementedError: unless overridden.
        """
        raise NotImplementedError(f"{type(self).__name__} has no expert_action; demonstrations and dagger need one")

    @property
    def has_expert(self) -> bool:
        """Whether expert_action is overridden."""
        return type(self).expert_action is not GymnasiumTask.expert_action

    def _entry(self, what: str, found: Any, key: str, method: str) -> Any:
        """found[key], or an error that names the method to override."""
        if isinstance(found, Mapping) and key in found:
            return found[key]
        has = (
            f"has {', '.join(map(repr, found)) or 'no keys'}" if isinstance(found, Mapping) else f"is {kind_of(found)}"
        )
        raise WorldError(f"{what} has no {key!r}: it {has}; write {method} in {type(self).__name__}")
