"""An episode in a user's environment, and the WorldSpec inferred from its first observations.

Shape letters: A action dims, S state dims, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import ArrayLike, NDArray

from envs.errors import UserError
from envs.suites.gymnasium_task import Env, GymnasiumTask
from envs.suites.returned import (
    Frames,
    NotFiniteError,
    WorldError,
    calling,
    frames_of,
    labels_of,
    number_of,
    results_of,
    sentence_of,
    success_flag_of,
    vector_of,
)
from envs.types import CameraSpec, EpisodeSpec, VectorSpec, WorldSpec

_STEP = ("observation", "reward", "terminated", "truncated", "info")
_FAR = float(np.finfo(np.float32).max)
"""Stands for an unknown bound."""


@dataclass
class Episode:
    """The episode that runs, or ran last, in a world."""

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

    @classmethod
    def begin(cls, spec: EpisodeSpec, task: GymnasiumTask, env: Env) -> Episode:
        """Reset the environment to the episode of that spec.

        Raises:
            WorldError: the environment or its task raised, or returned an invalid value.
        """
        with calling("reset"):
            observation, _ = results_of("reset", task.reset(env, spec), ("observation", "info"))
        with calling("instruction"):
            instruction = sentence_of(task.instruction(env))
        return cls(
            spec=spec,
            task=task,
            env=env,
            actions=ActionBox(env.action_space),
            max_steps=_step_limit(spec.task, task, env),
            observation=observation,
            instruction=instruction,
        )

    @property
    def done(self) -> bool:
        return self.terminated or self.truncated

    @property
    def failure(self) -> str | None:
        return "ended by the environment" if self.terminated and not self.success else None

    def step(self, action: NDArray[np.float32]) -> float:
        """Execute an action in [-1, 1]; returns the environment's reward, or raises as `begin`."""
        self.num_steps += 1
        with calling("step"):
            results = results_of("step", self.env.step(self.actions.stretch(action)), _STEP)
        self.observation, reward, terminated, truncated, info = results
        with calling("success"):
            self.success = success_flag_of("success", self.task.success(self.env, info))
        self.terminated = success_flag_of("terminated", terminated) or self.success
        self.truncated = not self.terminated and (
            success_flag_of("truncated", truncated) or self.num_steps >= self.max_steps
        )
        return number_of("the reward", reward)

    def state(self, size: int | None = None) -> NDArray[np.float32]:
        """Proprioception, float32 [S]; checked to have that size if given."""
        with calling("state"):
            return vector_of("the state", self.task.state(self.env, self.observation), size)

    def labels(self, names: tuple[str, ...] | None = None) -> dict[str, float]:
        """Labels by name, in the order of `names` if given."""
        with calling("labels"):
            return labels_of(self.task.labels(self.env), names)

    def frames(self, shapes: Mapping[str, tuple[int, ...]] | None = None) -> Frames:
        """Frames by camera; checked to have those shapes if given."""
        with calling("frames"):
            return frames_of(self.task.frames(self.env), shapes)

    def expert_action(self) -> NDArray[np.float32]:
        """The expert's action in [-1, 1], float32 [A]."""
        with calling("expert_action"):
            given = self.task.expert_action(self.env, self.observation)
            return self.actions.shrink(vector_of("the expert's action", given, self.actions.spec.size))


def infer_spec(begin: Callable[[], Episode], control_dt_s: float) -> WorldSpec:
    """The spec of a task's world, from an episode that is begun twice with some steps in between.

    Args:
        begin: begins the same episode at every call.
        control_dt_s: control period of the world.

    Raises:
        WorldError: the environment or its task raised or returned an invalid value, or the two beginnings differ.
    """
    episode = begin()
    first = _first_observation(episode)
    with suppress(NotFiniteError):  # the test steps may cause it; a real episode fails by itself
        for _ in range(3):
            if episode.done:
                break
            episode.step(np.ones(episode.actions.spec.size, np.float32))
    again = begin()
    differences = list(_differences(first, _first_observation(again)))
    if differences:
        raise WorldError(
            f"{again.spec.id} has another first observation after some steps, but reset(seed) alone must "
            f"determine it: {'; '.join(differences)}. Let reset restore all state and sample from self.np_random"
        )
    frames, state, _ = first
    labels = tuple(again.labels())
    return WorldSpec(
        cameras=tuple(
            CameraSpec(name=name, height=frame.shape[0], width=frame.shape[1]) for name, frame in frames.items()
        ),
        state=replace(
            _unnamed_vector("state", "of the environment", len(state), _FAR),
            position=tuple(episode.task.position),
        ),
        action=replace(episode.actions.spec, grippers=tuple(episode.task.grippers)),
        localization=_label_spec(episode.task, labels, tuple(frames)),
        control_dt_s=control_dt_s,
    )


def _label_spec(task: GymnasiumTask, labels: tuple[str, ...], cameras: tuple[str, ...]) -> VectorSpec:
    """
    Raises:
        WorldError: `places` names unknown cameras or labels, or omits a label that is named like a place.
    """
    own = type(task).__name__
    for camera, *names in task.places:
        if camera not in cameras:
            raise WorldError(f"places of {own} has the camera {camera!r}; cameras: {', '.join(cameras)}")
        if unknown := [name for name in names if name not in labels]:
            raise WorldError(f"places of {own} has the label {unknown[0]!r}; labels: {', '.join(labels)}")
    in_frames = {name for _, *names in task.places for name in names}
    for camera in cameras:
        for name in labels:
            if name.endswith(f"_{camera}_u") and name not in in_frames:
                raise WorldError(
                    f"label {name!r} is named like an image coordinate in the frame of {camera!r}, but places of {own} "
                    f"lacks it; write places = (({camera!r}, {name!r}, {name[:-2] + '_v'!r}),)"
                )
    return VectorSpec(
        names=labels,
        units=tuple("half frame" if name in in_frames else "m" for name in labels),
        low=(-_FAR,) * len(labels),
        high=(_FAR,) * len(labels),
        places=tuple((camera, labels.index(u), labels.index(v)) for camera, u, v in task.places),
    )


_FirstObservation = tuple[Frames, NDArray[np.float32], str]
"""Frames, state and instruction."""


def _first_observation(episode: Episode) -> _FirstObservation:
    return episode.frames(), episode.state(), episode.instruction


def _differences(before: _FirstObservation, after: _FirstObservation) -> Iterator[str]:
    """Describes the differences between two beginnings of one episode."""
    (frames, state, instruction), (frames_now, state_now, instruction_now) = before, after
    if state.shape != state_now.shape:
        yield f"the state had {len(state)} elements, then {len(state_now)}"
    elif len(moved := np.flatnonzero(state != state_now)):
        values = ", ".join(f"state_{i} was {state[i]:g}, then {state_now[i]:g}" for i in moved[:3])
        yield f"{len(moved)} of {len(state)} elements of the state ({values})"
    for name in {**frames, **frames_now}:
        old, new = frames.get(name), frames_now.get(name)
        if old is None or new is None or old.shape != new.shape:
            yield f"camera {name!r} gave {'nothing' if old is None else old.shape}, then " + (
                "nothing" if new is None else str(new.shape)
            )
        elif (off := np.abs(old.astype(np.int16) - new)).any():
            pixels = off.any(axis=2)
            yield f"{pixels.sum()} of {pixels.size} pixels of camera {name!r}, by up to {off.max()} of 255"
    if instruction != instruction_now:
        yield f"the instruction was {instruction!r}, then {instruction_now!r}"


def _step_limit(task_name: str, task: GymnasiumTask, env: Env) -> int:
    """
    Raises:
        WorldError: neither the task nor its environment has a step limit, or it is not a positive integer.
    """
    limit = task.max_steps
    if limit is None:
        limit = env.spec.max_episode_steps if env.spec is not None else None
    if limit is None:
        raise WorldError(
            f"task {task_name!r} has no step limit: neither its max_steps nor its environment's spec gives one"
        )
    if isinstance(limit, bool) or not isinstance(limit, Integral) or limit < 1:
        raise WorldError(f"the step limit of task {task_name!r} must be at least 1, got {limit!r}")
    return int(limit)


class ActionBox:
    """Maps a Box of actions to and from [-1, 1]."""

    def __init__(self, space: gymnasium.Space[Any]) -> None:
        """
        Raises:
            UserError: it is not a flat Box with finite bounds.
        """
        is_flat_box = isinstance(space, gymnasium.spaces.Box) and len(space.shape) == 1
        if not is_flat_box or not np.isfinite([space.low, space.high]).all():
            raise UserError(
                f"actions must be a flat Box with finite bounds, got {space}; "
                "wrap the environment in gymnasium.wrappers.TransformAction"
            )
        self.spec = _unnamed_vector("action", "of the Box", space.shape[0], 1.0)
        self._dtype = space.dtype
        low, high = space.low.astype(np.float64), space.high.astype(np.float64)
        self._middle, self._half = (high + low) / 2, (high - low) / 2

    def stretch(self, action: NDArray[np.float32]) -> NDArray[Any]:
        """From [-1, 1] to the Box, [A]."""
        stretched = self._middle + self._half * action
        return (stretched.round() if np.issubdtype(self._dtype, np.integer) else stretched).astype(self._dtype)

    def shrink(self, action: ArrayLike) -> NDArray[np.float32]:
        """From the Box to [-1, 1], [A]; 0 where the Box has no width."""
        offset = np.asarray(action, np.float64) - self._middle
        share = np.divide(offset, self._half, out=np.zeros_like(offset), where=self._half > 0)
        return share.clip(-1.0, 1.0).astype(np.float32)


def _unnamed_vector(name: str, unit: str, size: int, bound: float) -> VectorSpec:
    """A VectorSpec with only a bound of the absolute values known."""
    names = tuple(f"{name}_{i}" for i in range(size))
    return VectorSpec(names=names, units=(unit,) * size, low=(-bound,) * size, high=(bound,) * size)
