"""One table behind gymnasium's single-environment API, with the observation keys that LeRobot's tools expect.

`gymnasium.make("llamarm/PickPlace-v0")` makes it; see envs/registration.py for the ids.

Shape letters: A action dims, S state dims, L localization dims, H x W pixels.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError
from envs.simulation.render import BatchRenderer
from envs.tabletop.arm.control import CONTROL_DT_S
from envs.tabletop.tasks import SUITES
from envs.tabletop.world import TabletopConfig, TabletopWorld
from envs.types import CameraSpec, EpisodeSpec, Info, Observation
from envs.world import check_options, observation_space

SingleObservation = dict[str, Any]
"""{"pixels": {camera: uint8 [H, W, 3]}, "agent_pos": float32 [S], "instruction": str}"""


class TabletopEnv(gymnasium.Env[SingleObservation, NDArray[np.float32]]):
    """One task of the tabletop suite. It applies the episode's step limit itself: no TimeLimit wrapper is needed.

    info holds "is_success", "failure" (why the episode failed before its step limit, else ""), "instruction",
    "episode_id", "localization" (float32 [L], a training label) and, after a step, "reward_terms" by name.

    Examples:
        >>> env = TabletopEnv("lift")
        >>> observation, info = env.reset(seed=3)
        >>> observation["pixels"]["front"].shape
        (128, 128, 3)
        >>> env.close()
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": round(1 / CONTROL_DT_S)}  # noqa: RUF012, gymnasium's own form

    def __init__(
        self,
        task: str,
        variation: str = "train",
        render_mode: str | None = None,
        render_size_px: int = 256,
        config: TabletopConfig | None = None,
    ) -> None:
        """A table without an episode.

        Args:
            task: the only task whose episodes it runs.
            variation: of the episodes that `reset(seed=...)` begins.
            render_mode: "rgb_array", or None if `render` is not used.
            render_size_px: height and width of the frames of `render`.
            config: how the suite is simulated and rewarded.

        Raises:
            UserError: unknown task, variation or render_mode.
        """
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise UserError(f"render_mode {render_mode!r} does not exist; modes: rgb_array, or None")
        # An unknown task is looked up in the main suite, whose error lists the existing tasks.
        suite = next((name for name, tasks in SUITES.items() if task in tasks), "tabletop")
        self._world = TabletopWorld(1, config, suite=suite)
        self._spec = EpisodeSpec(suite=suite, task=task, seed=0, variation=variation)
        self._max_episode_steps = self._world.task_of(self._spec).max_steps
        self.task = task
        self.variation = variation
        self.render_mode = render_mode
        render_camera = CameraSpec(name="front", height=render_size_px, width=render_size_px)
        self._renderer = BatchRenderer(self._world.sim.batch, self._world.sim.model_field, (render_camera,))
        spaces = observation_space(self._world.world_spec)
        self.observation_space = gymnasium.spaces.Dict(
            {"pixels": spaces["frames"], "agent_pos": spaces["state"], "instruction": spaces["instruction"]}
        )
        self.action_space = self._world.single_action_space

    @property
    def task_description(self) -> str:
        """The instruction of the episode that runs (or ran last).

        Raises:
            UserError: no episode has begun.
        """
        return self._world.episode(0).instruction

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[SingleObservation, dict[str, Any]]:
        """Begin an episode: options["spec"] if given, else that of the seed (sampled if None).

        options["variation"] overrides the environment's own in this episode.

        Raises:
            UserError: an option that does not exist, a spec and a variation at once, a spec of another suite or task,
                or an unknown variation.
        """
        asked = check_options(options, ("spec", "variation"))
        super().reset(seed=seed)
        if seed is None:
            seed = int(self.np_random.integers(2**31))
        spec = asked.get("spec")
        if spec is None:
            spec = replace(self._spec, seed=seed, variation=asked.get("variation", self.variation))
        elif "variation" in asked:
            raise UserError("options has a spec, with its variation, and another variation; give one of the two")
        self._world.check_spec(spec)
        if spec.task != self.task:
            raise UserError(f"spec {spec.id!r} is of task {spec.task!r}; this environment is {self.task!r}")
        observation, info = self._world.reset_to((spec,), (0,))
        return _first(observation), self._info({**info, "is_success": [False], "failure": [""]})

    def step(self, action: NDArray[np.float32]) -> tuple[SingleObservation, float, bool, bool, dict[str, Any]]:
        """Execute one action, float32 [A] in [-1, 1]; reward is the weighted sum of the terms.

        Raises:
            UserError: wrong shape or a non-finite element.
        """
        observation, reward, terminated, truncated, info = self._world.step(np.asarray(action, np.float32)[None])
        plain = self._info(info) | {"reward_terms": {name: float(t[0]) for name, t in info["reward_terms"].items()}}
        return _first(observation), float(reward[0]), bool(terminated[0]), bool(truncated[0]), plain

    def render(self) -> NDArray[np.uint8] | None:
        """The front camera's view, uint8 [H, W, 3]; None without a render_mode."""
        if self.render_mode is None:
            return None
        return self._renderer.render((0,))["front"][0]

    def close(self) -> None:
        """Free both renderers."""
        self._renderer.close()
        self._world.close()

    def expert_action(self) -> NDArray[np.float32]:
        """The scripted expert's action for the current state, [A]."""
        return self._world.expert_action()[0]

    def _info(self, info: Info) -> dict[str, Any]:
        return {
            "is_success": bool(info["is_success"][0]),
            "failure": str(info["failure"][0]),
            "instruction": self.task_description,
            "episode_id": self._world.episode(0).spec.id,
            "localization": info["localization"][0].copy(),
        }


def _first(observation: Observation) -> SingleObservation:
    return {
        "pixels": {name: frames[0].copy() for name, frames in observation["frames"].items()},
        "agent_pos": observation["state"][0].copy(),
        "instruction": observation["instruction"][0],
    }
