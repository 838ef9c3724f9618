"""Any gymnasium environment with pixels and a success flag as a World: bring your own task (docs/your_task.md).

    class Reach(GymnasiumTask): ...        defines the observations of a policy and the success flag
    def make_world(num_worlds):            called by commands, in the process that runs the worlds
        return GymnasiumWorld(num_worlds, suite="mine", tasks={"reach": Reach()}, control_dt_s=0.04)

    llamarm eval expert --world my_module:make_world ...

Each of the N worlds has its own environment for every task that it has run; environments are stepped sequentially, and
parallelism comes from workers. Frames are rendered only when a policy or a recorder needs them. Environments and tasks
are called in one dedicated thread: OpenGL contexts belong to a thread, and a worker has several threads.

Seed rule: `env.reset(seed=...)` alone determines the first observation, whatever ran there before. This is tested when
the worlds are made, and an environment that violates it is rejected: paired comparisons would be meaningless.

Error rule: an exception of an environment or its task, or a returned value of the wrong type, shape or range, ends the
episode of that world only; its failure gives the reason (ChunkResult.broken). The other worlds continue, and the next
episode in that world gets a new environment.

Shape letters: N worlds, k actions executed of a chunk, A action dims, S state dims, L localization dims, H x W pixels.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from envs.arrays import to_numpy
from envs.suites.gymnasium_episode import Episode, infer_spec
from envs.suites.gymnasium_task import Env, GymnasiumTask
from envs.suites.returned import Frames, WorldError, calling
from envs.types import Array, ChunkResult, EpisodeSpec, Info, Observation, WorldSpec
from envs.world import World

__all__ = ["GymnasiumTask", "GymnasiumWorld"]

_LOG = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")


class GymnasiumWorld(World):
    """N worlds over gymnasium environments.

    The only reward term is the environment's own reward; algorithms that use success get the task's success flag.
    """

    def __init__(self, num_worlds: int, *, suite: str, tasks: Mapping[str, GymnasiumTask], control_dt_s: float) -> None:
        """Makes an environment of every task to determine its spaces.

        Args:
            suite: name of these worlds in specs and datasets.
            tasks: {name: task}; all have the same cameras, state, actions and labels.
            control_dt_s: time between two steps.

        Raises:
            UserError: no task, tasks with different spaces, actions that are not a flat Box with finite bounds, frames
                that are not images, no success flag, no step limit, an exception of an environment or its task, or a
                first observation that the seed does not determine; the message says what was found instead.
        """
        self._tasks = dict(tasks)
        self._envs: list[dict[str, Env]] = [{} for _ in range(max(num_worlds, 1))]
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=suite)
        try:
            spec = self._common_spec(suite, control_dt_s)
            super().__init__(num_worlds=num_worlds, world_spec=spec, suite=suite, tasks=tuple(tasks))
        except BaseException:
            self.close_extras()
            raise
        self._episodes: list[Episode | None] = [None] * num_worlds
        self._broken: dict[int, str] = {}  # {world: reason} of episodes that an error ended
        self._shapes = {c.name: (c.height, c.width, 3) for c in spec.cameras}
        self._frames = {c.name: np.zeros((num_worlds, c.height, c.width, 3), np.uint8) for c in spec.cameras}
        self._state = np.zeros((num_worlds, spec.state.size), np.float32)
        self._localization = np.zeros((num_worlds, spec.localization.size), np.float32)

    def variations_of(self, task: str) -> tuple[str, ...]:
        return self._tasks[task].variations

    def reset_to(self, specs: Sequence[EpisodeSpec], worlds: Sequence[int]) -> tuple[Observation, Info]:
        self.check_reset(specs, worlds)
        self._do(self._reset_all, specs, worlds)
        failed = {n: self._broken[n] for n in worlds if n in self._broken}
        return self._observation(), {"localization": self._localization.copy(), "broken": failed}

    def step_chunk(self, actions: Array, *, all_frames: bool = False, ended_frames: bool = True) -> ChunkResult:
        return self._do(self._step_all, self._checked(actions), all_frames, ended_frames)

    def expert_action(self) -> NDArray[np.float32]:
        return self._do(self._expert_actions)

    def close_extras(self, **kwargs: object) -> None:
        """Close every environment."""
        del kwargs
        self._do(self._close_all)
        self._thread.shutdown()

    def _do(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function in the environments' thread."""
        return self._thread.submit(function, *args, **kwargs).result()

    def _reset_all(self, specs: Sequence[EpisodeSpec], worlds: Sequence[int]) -> None:
        for spec, n in zip(specs, worlds, strict=True):
            self._broken.pop(n, None)
            self._episodes[n] = None
            # A broken episode must not show data of the previous one.
            for values in (self._state, self._localization, *self._frames.values()):
                values[n] = 0
            with self._guarded(n, spec.task):
                episode = self._episodes[n] = self._begin(spec, n)
                self._observe(n, episode)
                self._render(n, episode)

    def _step_all(self, actions: NDArray[np.float32], all_frames: bool, ended_frames: bool) -> ChunkResult:
        shape = actions.shape[:2]  # N, k
        reward = np.zeros(shape, np.float32)
        states = np.zeros((*shape, self._state.shape[1]), np.float32)
        localization = np.zeros((*shape, self._localization.shape[1]), np.float32)
        num_steps = np.zeros(shape[0], np.int64)
        recorded = self._frames if all_frames else {}
        videos = {name: np.zeros((*shape, *frames.shape[1:]), np.uint8) for name, frames in recorded.items()}
        for n in range(shape[0]):
            for i, action in enumerate(actions[n]):
                if (episode := self._running(n)) is not None:
                    with self._guarded(n, episode.spec.task):
                        earned = episode.step(action)
                        self._observe(n, episode)
                        if all_frames:
                            self._render(n, episode)
                        reward[n, i] = earned
                    num_steps[n] += 1
                states[n, i], localization[n, i] = self._state[n], self._localization[n]
                for name, frames in recorded.items():
                    videos[name][n, i] = frames[n]
            episode = self._episodes[n] if ended_frames and n not in self._broken else self._running(n)
            if num_steps[n] and not all_frames and episode is not None:
                with self._guarded(n, episode.spec.task):
                    self._render(n, episode)
        return self._result(reward, states, localization, num_steps, videos or None)

    def _expert_actions(self) -> NDArray[np.float32]:
        actions = np.zeros((self.num_envs, self.world_spec.action.size), np.float32)
        for n in range(self.num_envs):
            if (episode := self._running(n)) is None:
                continue
            if not episode.task.has_expert:
                raise NotImplementedError(f"{type(episode.task).__name__} has no expert_action")
            with self._guarded(n, episode.spec.task):
                actions[n] = episode.expert_action()
        return actions

    def _running(self, n: int) -> Episode | None:
        """The running episode of that world, or None."""
        episode = self._episodes[n]
        return None if episode is None or episode.done or n in self._broken else episode

    @contextmanager
    def _guarded(self, n: int, task: str) -> Generator[None]:
        """An error of the environment or its task, raised within, ends the episode of that world. The environment,
        whose state may be invalid, is discarded.
        """
        try:
            yield
        except WorldError as error:
            step = 0 if (episode := self._episodes[n]) is None else episode.num_steps
            self._broken[n] = f"{error} (step {step})"
            if (env := self._envs[n].pop(task, None)) is not None:
                _close(env)

    def _close_all(self) -> None:
        for env in [env for envs in self._envs for env in envs.values()]:
            _close(env)
        # Tasks are released here too, in the thread that owns their OpenGL contexts.
        self._envs, self._episodes = [], []
        self._tasks.clear()

    def _begin(self, spec: EpisodeSpec, n: int) -> Episode:
        task = self._tasks[spec.task]
        if spec.task not in self._envs[n]:
            with calling("make_env"):
                self._envs[n][spec.task] = task.make_env()
        return Episode.begin(spec, task, self._envs[n][spec.task])

    def _common_spec(self, suite: str, control_dt_s: float) -> WorldSpec:
        specs = {}
        for name in self._tasks:
            begin = partial(self._begin, EpisodeSpec(suite=suite, task=name, seed=0), 0)
            try:
                specs[name] = self._do(infer_spec, begin, control_dt_s)
            except WorldError as error:
                raise WorldError(f"task {name!r} cannot be run as a world: {error}") from error
        if not specs:
            raise WorldError(f"suite {suite!r} has no task")
        (first_name, spec), *others = specs.items()
        for name, other in others:
            if other != spec:
                raise WorldError(
                    f"tasks of one suite must have the same spec, but {name} has {other} and {first_name} {spec}"
                )
        return spec

    def _observe(self, n: int, episode: Episode) -> None:
        self._state[n] = episode.state(self.world_spec.state.size)
        self._localization[n] = list(episode.labels(self.world_spec.localization.names).values())

    def _render(self, n: int, episode: Episode) -> None:
        for name, frame in episode.frames(self._shapes).items():
            self._frames[name][n] = frame

    def _checked(self, actions: Array) -> NDArray[np.float32]:
        """The actions clipped to [-1, 1], after checking their shape and that those of running worlds are finite."""
        self.check_action_shape(actions)
        actions = to_numpy(actions)
        running = [n for n in range(self.num_envs) if self._running(n) is not None]
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
        def flags(what: str) -> NDArray[np.bool_]:
            return np.array([getattr(episode, what, False) for episode in self._episodes], bool)

        broken = np.isin(np.arange(self.num_envs), list(self._broken))
        return ChunkResult(
            observation=self._observation(),
            reward_terms={"environment": reward},
            reward=reward,
            states=states,
            localization=localization,
            num_steps=num_steps,
            terminated=flags("terminated") | broken,
            truncated=flags("truncated") & ~broken,
            success=flags("success") & ~broken,
            failure=tuple(
                self._broken.get(n) or (episode.failure if episode else None)
                for n, episode in enumerate(self._episodes)
            ),
            broken=frozenset(self._broken),
            all_frames=all_frames,
        )


def _close(env: Env) -> None:
    """Close an environment; a failure is only logged, so that the other environments are closed too."""
    try:
        with calling("close"):
            env.close()
    except WorldError as error:
        _LOG.warning("%s", error)
