"""Any gymnasium environment with pixels and a verdict as a World: bring your own task (docs/your_task.md).

    class Reach(GymnasiumTask): ...        what a policy sees of an environment, and when it has succeeded
    def make_world(num_worlds):            what commands call, in whatever process runs the worlds
        return GymnasiumWorld(num_worlds, suite="mine", tasks={"reach": Reach()}, control_dt_s=0.04)

    llamarm eval expert --world my_module:make_world ...

Each of the N worlds has an environment of its own for every task that it has run; they are stepped one after the other,
and workers make worlds run side by side. Frames are asked for only when a policy or a recorder looks. Environments and
tasks are called in one thread, which does nothing else: OpenGL contexts belong to a thread, and a worker has several.

Rule of seeds: `env.reset(seed=...)` alone decides the first observation, whatever ran there before. It is tried when
the worlds are made, and an environment that breaks it is refused: paired results would compare nothing.

Shape letters: N worlds, k actions executed of a chunk, A action dims, S state dims, L localization dims, H x W pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

import gymnasium
import numpy as np
from numpy.typing import ArrayLike, NDArray

from envs.arrays import to_numpy
from envs.suites.spaces import ActionBox, unnamed_vector
from envs.types import Array, CameraSpec, ChunkResult, EpisodeSpec, Info, Observation, VectorSpec, WorldSpec
from envs.world import World

Env = gymnasium.Env[Any, Any]
Frames = dict[str, NDArray[np.uint8]]
"""{camera: [H, W, 3]} of one environment."""
P = ParamSpec("P")
R = TypeVar("R")
_FAR = float(np.finfo(np.float32).max)
"""A bound that is not known."""


class GymnasiumTask(ABC):
    """One task: makes its environment, says what a policy sees of it, and when it has succeeded.

    All worlds share it, so it remembers nothing about an episode.
    """

    max_steps: int | None = None
    """The step limit; that of the environment's registration where None."""
    variations: tuple[str, ...] = ("train",)
    """Which an episode may ask for; `reset` is told the episode's."""

    @abstractmethod
    def make_env(self) -> Env:
        """A new environment, e.g. from gymnasium.make."""

    @abstractmethod
    def instruction(self, env: Env) -> str:
        """What the policy is told in the episode that has begun."""

    def reset(self, env: Env, spec: EpisodeSpec) -> tuple[Any, dict[str, Any]]:
        """Begin the episode of a spec, as env.reset does."""
        return env.reset(seed=spec.seed)

    def frames(self, env: Env) -> Frames:
        """The cameras' present frames, RGB; unless overridden what env.render gives, as the camera "image"."""
        return {"image": np.asarray(env.render())}

    def state(self, env: Env, observation: Any) -> ArrayLike:
        """Proprioception, [S]; unless overridden, what LeRobot's environments give."""
        del env
        return observation["agent_pos"]

    def success(self, env: Env, info: dict[str, Any]) -> bool:
        """The verdict after a step; True ends the episode."""
        del env
        return bool(info["is_success"])

    def labels(self, env: Env) -> Mapping[str, float]:
        """Where things are, by name: training may learn from it and no policy sees it; unless overridden nothing.

        Positions are in metres. What is called THING_CAMERA_u and THING_CAMERA_v is a place in that camera's frame, u
        to the right, v down, -1 and 1 at the edges.
        """
        del env
        return {}

    def expert_action(self, env: Env, observation: Any) -> ArrayLike:
        """A scripted expert's action, as env.step takes it. It depends on the present state alone: any may come.

        Raises:
            NotImplementedError: unless overridden.
        """
        raise NotImplementedError(f"{type(self).__name__} has no expert_action; demonstrations and dagger need one")


@dataclass
class _Episode:
    """What runs, or ran last, in a world."""

    spec: EpisodeSpec
    task: GymnasiumTask
    env: Env
    actions: ActionBox
    max_steps: int
    observation: Any
    instruction: str
    num_steps: int = 0
    success: bool = False
    terminated: bool = False
    truncated: bool = False

    @property
    def done(self) -> bool:
        return self.terminated or self.truncated

    @property
    def failure(self) -> str | None:
        return "ended by the environment" if self.terminated and not self.success else None

    def step(self, action: NDArray[np.float32]) -> float:
        """Execute an action in [-1, 1]; returns the environment's reward."""
        self.observation, reward, terminated, truncated, info = self.env.step(self.actions.stretch(action))
        self.num_steps += 1
        self.success = bool(self.task.success(self.env, info))
        self.terminated = bool(terminated) or self.success
        self.truncated = not self.terminated and (bool(truncated) or self.num_steps >= self.max_steps)
        return float(reward)

    def state(self) -> NDArray[np.float32]:
        return np.array(self.task.state(self.env, self.observation), np.float32)

    def labels(self) -> NDArray[np.float32]:
        return np.array(list(self.task.labels(self.env).values()), np.float32)


class GymnasiumWorld(World):
    """N worlds over environments of gymnasium.

    The reward is the environment's own, its only term; algorithms that ask for success get the task's verdict.
    """

    def __init__(self, num_worlds: int, *, suite: str, tasks: Mapping[str, GymnasiumTask], control_dt_s: float) -> None:
        """Makes an environment of every task, to see what it shows.

        Args:
            suite: names these worlds in specs and datasets.
            tasks: by the names that users type; all show the same cameras, state, actions and labels.
            control_dt_s: time between two steps.

        Raises:
            ValueError: no task, tasks that show different things, actions that are not a flat Box with finite bounds,
                frames that are not images, no step limit, or a first observation that its seed does not decide.
        """
        self._tasks = dict(tasks)
        self._envs: list[dict[str, Env]] = [{} for _ in range(max(num_worlds, 1))]
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=suite)
        try:
            spec = self._what_tasks_show(suite, control_dt_s)
            super().__init__(num_worlds=num_worlds, world_spec=spec, suite=suite, tasks=tuple(tasks))
        except BaseException:
            self.close_extras()
            raise
        self._episodes: list[_Episode | None] = [None] * num_worlds
        self._frames = {c.name: np.zeros((num_worlds, c.height, c.width, 3), np.uint8) for c in spec.cameras}
        self._state = np.zeros((num_worlds, spec.state.size), np.float32)
        self._localization = np.zeros((num_worlds, spec.localization.size), np.float32)

    def variations_of(self, task: str) -> tuple[str, ...]:
        """See World.variations_of."""
        return self._tasks[task].variations

    def reset_to(self, specs: Sequence[EpisodeSpec], worlds: Sequence[int]) -> tuple[Observation, Info]:
        """See World.reset_to.

        Raises:
            ValueError: a spec of another suite, or with an unknown task or variation.
        """
        for spec in specs:
            self.check_spec(spec, self._tasks[spec.task].variations if spec.task in self._tasks else ())
        self._do(self._reset_all, specs, worlds)
        return self._observation(), {"localization": self._localization.copy()}

    def step_chunk(self, actions: Array, *, all_frames: bool = False, ended_frames: bool = True) -> ChunkResult:
        """See World.step_chunk."""
        return self._do(self._step_all, self._checked(to_numpy(actions)), all_frames, ended_frames)

    def expert_action(self) -> NDArray[np.float32]:
        """See World.expert_action."""
        return self._do(self._ask_experts)

    def close_extras(self, **kwargs: object) -> None:
        """Close every environment."""
        del kwargs
        self._do(self._close_all)
        self._thread.shutdown()

    def _do(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """In the environments' thread."""
        return self._thread.submit(function, *args, **kwargs).result()

    def _reset_all(self, specs: Sequence[EpisodeSpec], worlds: Sequence[int]) -> None:
        for spec, n in zip(specs, worlds, strict=True):
            self._episodes[n] = self._begin(spec, n)
            self._look(n)
            self._draw(n)

    def _step_all(self, actions: NDArray[np.float32], all_frames: bool, ended_frames: bool) -> ChunkResult:
        shape = actions.shape[:2]  # N, k
        reward = np.zeros(shape, np.float32)
        states = np.zeros((*shape, self._state.shape[1]), np.float32)
        localization = np.zeros((*shape, self._localization.shape[1]), np.float32)
        num_steps = np.zeros(shape[0], np.int64)
        films = {name: np.zeros((*shape, *frames.shape[1:]), np.uint8) for name, frames in self._frames.items()}
        for n, episode in enumerate(self._episodes):
            for i, action in enumerate(actions[n]):
                if episode is not None and not episode.done:
                    reward[n, i] = episode.step(action)
                    num_steps[n] += 1
                    self._look(n)
                    if all_frames:
                        self._draw(n)
                states[n, i], localization[n, i] = self._state[n], self._localization[n]
                for name, frames in self._frames.items() if all_frames else ():
                    films[name][n, i] = frames[n]
            if episode is not None and num_steps[n] and not all_frames and (ended_frames or not episode.done):
                self._draw(n)
        return self._result(reward, states, localization, num_steps, films if all_frames else None)

    def _ask_experts(self) -> NDArray[np.float32]:
        actions = np.zeros((self.num_envs, self.world_spec.action.size), np.float32)
        for n, episode in enumerate(self._episodes):
            if episode is not None and not episode.done:
                actions[n] = episode.actions.shrink(episode.task.expert_action(episode.env, episode.observation))
        return actions

    def _close_all(self) -> None:
        for env in [env for envs in self._envs for env in envs.values()]:
            env.close()
        # What a task keeps ends here too, in the thread that its OpenGL contexts belong to.
        self._envs, self._episodes = [], []
        self._tasks.clear()

    def _begin(self, spec: EpisodeSpec, n: int) -> _Episode:
        task = self._tasks[spec.task]
        if spec.task not in self._envs[n]:
            self._envs[n][spec.task] = task.make_env()
        env = self._envs[n][spec.task]
        max_steps = task.max_steps or (env.spec.max_episode_steps if env.spec is not None else None)
        if not max_steps:
            raise ValueError(
                f"task {spec.task!r} has no step limit: neither its max_steps nor its environment's says one"
            )
        observation, _ = task.reset(env, spec)
        return _Episode(
            spec=spec,
            task=task,
            env=env,
            actions=ActionBox(env.action_space),
            max_steps=max_steps,
            observation=observation,
            instruction=task.instruction(env),
        )

    def _what_tasks_show(self, suite: str, control_dt_s: float) -> WorldSpec:
        examples = {name: EpisodeSpec(suite=suite, task=name, seed=0) for name in self._tasks}
        specs = {name: self._do(self._look_at, example, control_dt_s) for name, example in examples.items()}
        if not specs:
            raise ValueError(f"suite {suite!r} has no task")
        (first_name, spec), *others = specs.items()
        for name, other in others:
            if other != spec:
                raise ValueError(f"tasks of one suite show the same, but {name} has {other} and {first_name} {spec}")
        return spec

    def _look_at(self, spec: EpisodeSpec, control_dt_s: float) -> WorldSpec:
        """What a task shows, seen in an episode that is begun twice, with some steps between."""
        episode = self._begin(spec, 0)
        frames, state = _images(episode), episode.state()
        for _ in range(3):
            if episode.done:
                break
            episode.step(np.ones(episode.actions.spec.size, np.float32))
        again = self._begin(spec, 0)
        same = [np.array_equal(frames[name], frame) for name, frame in _images(again).items()]
        if not np.array_equal(state, again.state()) or not all(same):
            raise ValueError(
                f"{spec.id} began otherwise after some steps, but reset(seed) alone must decide the first observation"
            )
        labels = tuple(again.task.labels(again.env))
        return WorldSpec(
            cameras=tuple(
                CameraSpec(name=name, height=frame.shape[0], width=frame.shape[1]) for name, frame in frames.items()
            ),
            state=unnamed_vector("state", "of the environment", np.full(len(state), -_FAR), np.full(len(state), _FAR)),
            action=episode.actions.spec,
            localization=VectorSpec(
                names=labels,
                units=tuple("half frame" if name.endswith(("_u", "_v")) else "m" for name in labels),
                low=(-_FAR,) * len(labels),
                high=(_FAR,) * len(labels),
            ),
            control_dt_s=control_dt_s,
        )

    def _look(self, n: int) -> None:
        episode = self._episodes[n]
        assert episode is not None
        self._state[n], self._localization[n] = episode.state(), episode.labels()

    def _draw(self, n: int) -> None:
        episode = self._episodes[n]
        assert episode is not None
        for name, frame in episode.task.frames(episode.env).items():
            self._frames[name][n] = frame

    def _checked(self, actions: NDArray[Any]) -> NDArray[np.float32]:
        """Clipped, where they are of the right shape and those of running worlds are finite."""
        self.check_action_shape(actions)
        running = [n for n, episode in enumerate(self._episodes) if episode is not None and not episode.done]
        self.refuse_non_finite(actions, np.array(running, np.int64))
        return actions.astype(np.float32).clip(-1.0, 1.0)

    def _observation(self) -> Observation:
        return {
            "frames": {name: frames.copy() for name, frames in self._frames.items()},
            "state": self._state.copy(),
            "instruction": tuple(episode.instruction if episode else "" for episode in self._episodes),
        }

    def _result(
        self,
        reward: NDArray[np.float32],
        states: NDArray[np.float32],
        localization: NDArray[np.float32],
        num_steps: NDArray[np.int64],
        all_frames: Frames | None,
    ) -> ChunkResult:
        def told(what: str) -> NDArray[np.bool_]:
            return np.array([getattr(episode, what, False) for episode in self._episodes], bool)

        return ChunkResult(
            observation=self._observation(),
            reward_terms={"environment": reward},
            reward=reward,
            states=states,
            localization=localization,
            num_steps=num_steps,
            terminated=told("terminated"),
            truncated=told("truncated"),
            success=told("success"),
            failure=tuple(episode.failure if episode else None for episode in self._episodes),
            all_frames=all_frames,
        )


def _images(episode: _Episode) -> Frames:
    """The episode's frames, checked and kept from being overwritten."""
    frames = {name: np.array(frame) for name, frame in episode.task.frames(episode.env).items()}
    for name, frame in frames.items():
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise ValueError(
                f"camera {name!r} of {episode.spec.task} gives {frame.dtype} {frame.shape}, expected uint8 (H, W, 3)"
            )
    if not frames:
        raise ValueError(f"{episode.spec.task} has no camera")
    return frames
