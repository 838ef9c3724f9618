r"""llamarm's worlds as environments of LeRobot: tabletop, Meta-World, or any MODULE:FUNCTION.

    lerobot-eval --env.type=llamarm --env.discover_packages_path=lerobot_env_llamarm \
        --env.world=tabletop --env.task=reach --policy.path=... --seed=0

LeRobot from 0.6 finds the package by its name and asks `create_envs`, which gives {suite: {task id: VectorEnv}}; then
--env.task may be several, separated by commas. A seed s is that of evaluation's episode s, so episodes are those of
`llamarm eval`. `make_env` is what an env.py of EnvHub has.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import cache, partial
from typing import Any

import gymnasium
import numpy as np

from agent.runs.seeds import FIRST_EVALUATION_SEED
from envs.make import make_world
from envs.types import EpisodeSpec, WorldSpec

GYM_ID = "lerobot_env_llamarm/World-v0"


class WorldEnv(gymnasium.Env):
    """One task of a world, with the observations, info and attributes that LeRobot reads.

    Observations are {"pixels": {camera: uint8 [H, W, 3]}, "agent_pos": float32 [S]}; info has "is_success" at every
    step, and the environment the attributes task, task_description and _max_episode_steps. The world is made by the
    first reset: LeRobot makes the environments of all tasks before it evaluates the first, and 50 tasks of 10
    environments are 500 simulators.
    """

    def __init__(self, world="tabletop", task=None, variation="train", max_episode_steps=1000, render_mode="rgb_array"):
        self._name, self._world = world, None
        spec, tasks = described(world)
        self.task = task or tasks[0]
        if self.task not in tasks:
            raise ValueError(f"task {self.task!r} does not exist; tasks: {', '.join(tasks)}")
        self.variation = variation
        self.render_mode = render_mode
        self.task_description = ""
        self._max_episode_steps = max_episode_steps  # the world has its own limit, per task
        frames = {c.name: gymnasium.spaces.Box(0, 255, (c.height, c.width, 3), np.uint8) for c in spec.cameras}
        state = gymnasium.spaces.Box(-np.inf, np.inf, (spec.state.size,), np.float32)
        self.observation_space = gymnasium.spaces.Dict({"pixels": gymnasium.spaces.Dict(frames), "agent_pos": state})
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (spec.action.size,), np.float32)
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": round(1 / spec.control_dt_s)}
        self._steps = 0

    @property
    def world(self):
        """The simulator, made when it is first used."""
        if self._world is None:
            self._world = make_world(self._name)
        return self._world

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        number = int(self.np_random.integers(2**31)) if seed is None else seed
        episode = EpisodeSpec(
            suite=self.world.suite, task=self.task, seed=FIRST_EVALUATION_SEED + number, variation=self.variation
        )
        self._seen, _ = self.world.reset_to([episode], [0])
        self.task_description = self._seen["instruction"][0]
        self._steps = 0
        return self._observation(), {"is_success": False, "episode_id": episode.id}

    def step(self, action):
        result = self.world.step_chunk(np.asarray(action, np.float32)[None, None])
        self._seen = result.observation
        self._steps += 1
        truncated = bool(result.truncated[0]) or self._steps >= self._max_episode_steps
        info = {"is_success": bool(result.success[0]), "failure": result.failure[0] or ""}
        return self._observation(), float(result.reward[0, 0]), bool(result.terminated[0]), truncated, info

    def render(self):
        """The first camera's frame, [H, W, 3]."""
        return next(iter(self._observation()["pixels"].values()))

    def close(self):
        if self._world is not None:
            self._world.close()
            self._world = None

    def _observation(self):
        frames = {name: np.asarray(frames[0]) for name, frames in self._seen["frames"].items()}
        return {"pixels": frames, "agent_pos": np.asarray(self._seen["state"][0], np.float32)}


@cache
def described(world: str) -> tuple[WorldSpec, tuple[str, ...]]:
    """Spec and tasks of a world."""
    with closing(make_world(world)) as example:
        return example.world_spec, tuple(example.tasks)


def make_envs(
    world: str, tasks: list[str] | None = None, n_envs: int = 1, use_async_envs: bool = False, **options: Any
) -> dict[str, dict[int, gymnasium.vector.VectorEnv]]:
    """{suite: {task id: VectorEnv}} of these tasks, or of all; a task's simulators are made when it is first reset."""
    vector = gymnasium.vector.AsyncVectorEnv if use_async_envs else gymnasium.vector.SyncVectorEnv
    makers: list[list[Callable[[], WorldEnv]]] = [
        [partial(WorldEnv, world, task, **options)] * n_envs for task in tasks or described(world)[1]
    ]
    return {world: {i: vector(each) for i, each in enumerate(makers)}}


def make_env(n_envs: int = 1, use_async_envs: bool = False, cfg: Any = None):
    """EnvHub's function."""
    world, task = getattr(cfg, "world", "tabletop"), getattr(cfg, "task", None)
    return make_envs(world, task.split(",") if task else None, n_envs, use_async_envs)


gymnasium.register(GYM_ID, entry_point=WorldEnv)

try:
    from dataclasses import dataclass

    from lerobot.configs.types import FeatureType, PolicyFeature
    from lerobot.envs.configs import EnvConfig
except ImportError:  # the factories work without LeRobot
    pass
else:

    @EnvConfig.register_subclass("llamarm")
    @dataclass
    class LlamarmEnv(EnvConfig):
        """A task of a world; features and rate are the world's."""

        world: str = "tabletop"
        task: str | None = "reach"
        variation: str = "train"
        max_episode_steps: int = 1000

        def __post_init__(self):
            spec, _ = described(self.world)
            self.fps = round(1 / spec.control_dt_s)
            self.features = {
                "action": PolicyFeature(type=FeatureType.ACTION, shape=(spec.action.size,)),
                "agent_pos": PolicyFeature(type=FeatureType.STATE, shape=(spec.state.size,)),
            } | {
                f"pixels/{c.name}": PolicyFeature(type=FeatureType.VISUAL, shape=(c.height, c.width, 3))
                for c in spec.cameras
            }
            self.features_map = {"action": "action", "agent_pos": "observation.state"} | {
                f"pixels/{c.name}": f"observation.images.{c.name}" for c in spec.cameras
            }

        @property
        def gym_id(self) -> str:
            return GYM_ID

        @property
        def gym_kwargs(self) -> dict:
            return {
                "world": self.world,
                "task": self.task,
                "variation": self.variation,
                "max_episode_steps": self.max_episode_steps,
            }

        def create_envs(self, n_envs: int, use_async_envs: bool = False):
            """Of LeRobot from 0.6."""
            tasks = self.task.split(",") if self.task else None
            options = {"variation": self.variation, "max_episode_steps": self.max_episode_steps}
            return make_envs(self.world, tasks, n_envs, use_async_envs, **options)
