"""A world whose every number can be computed by hand: counters instead of physics, coloured frames instead of cameras.

An episode of seed s lasts `episode_length(s)` steps. Frame (front) at step t of seed s has red = s % 256, green = t and
blue = sum of the executed first action dims, scaled; the wrist camera shows the same colours in its own size.
"""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.types import CameraSpec, ChunkResult, EpisodeSpec, Info, Observation, VectorSpec, WorldSpec
from envs.world import World
from rollout.types import Trajectory
from vla_model.types import ActionChunk

ACTION = VectorSpec(
    names=("dx", "dy", "gripper"),
    units=("0.05 m", "0.05 m", "1"),
    low=(-1.0, -1.0, -1.0),
    high=(1.0, 1.0, 1.0),
    grippers=(2,),
)
STATE = VectorSpec(names=("step", "pushed"), units=("1", "1"), low=(0.0, -99.0), high=(99.0, 99.0))
LOCALIZATION = VectorSpec(
    names=("object_x", "object_y", "object_z"), units=("m",) * 3, low=(-1.0,) * 3, high=(1.0,) * 3
)
CAMERAS = (CameraSpec(name="front", height=16, width=24), CameraSpec(name="wrist", height=8, width=8))
WORLD_SPEC = WorldSpec(cameras=CAMERAS, state=STATE, action=ACTION, localization=LOCALIZATION, control_dt_s=0.05)


def fake_spec(seed: int, task: str = "count") -> EpisodeSpec:
    return EpisodeSpec(suite="fake", task=task, seed=seed)


def episode_length(seed: int) -> int:
    return 3 + seed % 5


def succeeds(seed: int) -> bool:
    return seed % 3 != 0


class FakeWorld(World):
    """N counters. The process dies on reaching a seed of `deadly`: once where a file is given, which then notes it."""

    def __init__(
        self, num_worlds: int, world_spec: WorldSpec = WORLD_SPEC, deadly: dict[int, Path | None] | None = None
    ) -> None:
        super().__init__(num_worlds=num_worlds, world_spec=world_spec, suite="fake", tasks=("count",))
        self.specs: list[EpisodeSpec | None] = [None] * num_worlds
        self.steps = np.zeros(num_worlds, np.int64)
        self.pushed = np.zeros(num_worlds, np.float32)
        self.running = np.zeros(num_worlds, bool)
        self.deadly = deadly or {}
        self.begun: list[tuple[int, int]] = []

    def reset_to(self, specs: Sequence[EpisodeSpec], worlds: Sequence[int]) -> tuple[Observation, Info]:
        for spec, n in zip(specs, worlds, strict=True):
            self._die_if_deadly(spec.seed)
            self.specs[n], self.steps[n], self.pushed[n], self.running[n] = (spec, 0, 0.0, True)
            self.begun.append((n, spec.seed))
        return self._observe(), {"localization": self._localize()}

    def step_chunk(
        self, actions: NDArray[np.float32], *, all_frames: bool = False, ended_frames: bool = True
    ) -> ChunkResult:
        n_worlds, k = self.num_envs, actions.shape[1]
        actions = np.clip(actions, -1.0, 1.0)
        reward = np.zeros((n_worlds, k), np.float32)
        states = np.zeros((n_worlds, k, self.world_spec.state.size), np.float32)
        localization = np.zeros((n_worlds, k, self.world_spec.localization.size), np.float32)
        num_steps = np.zeros(n_worlds, np.int64)
        shown: list[dict[str, NDArray[np.uint8]]] = []
        for i in range(k):
            self.steps += self.running
            self.pushed += np.where(self.running, actions[:, i, 0], 0.0).astype(np.float32)
            reward[:, i] = np.where(self.running, self.steps, 0)
            num_steps += self.running
            self.running &= np.array([self.steps[n] < self._length(n) for n in range(n_worlds)])
            states[:, i], localization[:, i] = self._state(), self._localize()
            shown.append(self._render())
        ended = np.array([spec is not None for spec in self.specs]) & ~self.running
        won = np.array([spec is not None and succeeds(spec.seed) for spec in self.specs])
        return ChunkResult(
            observation=self._observe(),
            reward_terms={"steps": reward * np.float32(0.75), "alive": reward * np.float32(0.25)},
            reward=reward,
            states=states,
            localization=localization,
            num_steps=num_steps,
            terminated=ended & won,
            truncated=ended & ~won,
            success=ended & won,
            failure=tuple("wrong colour" if e and not w else None for e, w in zip(ended, won, strict=True)),
            all_frames={c.name: np.stack([s[c.name] for s in shown], axis=1) for c in self.world_spec.cameras}
            if all_frames
            else None,
        )

    def expert_action(self) -> NDArray[np.float32]:
        actions = np.zeros((self.num_envs, self.world_spec.action.size), np.float32)
        actions[:, 0] = np.where(self.running, 0.1, 0.0)
        actions[:, -1] = np.where(self.running, np.where(self.steps % 2 == 0, 1.0, -1.0), 0.0)
        return actions

    def example_spec(self, seed: int) -> EpisodeSpec:
        return fake_spec(seed)

    def _length(self, n: int) -> int:
        spec = self.specs[n]
        return episode_length(spec.seed) if spec else 0

    def _die_if_deadly(self, seed: int) -> None:
        mark = self.deadly.get(seed)
        if seed in self.deadly and (mark is None or not mark.exists()):
            if mark is not None:
                mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    def _state(self) -> NDArray[np.float32]:
        return np.stack([self.steps.astype(np.float32), self.pushed], axis=-1)

    def _localize(self) -> NDArray[np.float32]:
        seeds = np.array([spec.seed if spec else 0 for spec in self.specs])
        where = np.stack([seeds * 0.01, self.steps * 0.01, np.zeros(self.num_envs)], axis=-1)
        return where[:, : self.world_spec.localization.size].astype(np.float32)

    def _render(self) -> dict[str, NDArray[np.uint8]]:
        seeds = np.array([spec.seed if spec else 0 for spec in self.specs])
        blue = np.clip(128 + 50 * self.pushed, 0, 255)
        colour = np.stack([seeds % 256, self.steps, blue], axis=-1).astype(np.uint8)  # [N, 3]
        frames = {}
        for camera in self.world_spec.cameras:
            shape = (self.num_envs, camera.height, camera.width, 3)
            frames[camera.name] = np.broadcast_to(colour[:, None, None], shape).copy()
            frames[camera.name][:, : camera.height // 2, : camera.width // 2] //= 2
        return frames

    def _observe(self) -> Observation:
        sentences = tuple(f"count to {episode_length(s.seed)}" if s else "" for s in self.specs)
        return {"frames": self._render(), "state": self._state(), "instruction": sentences}


class CountingPolicy:
    """Chunks that depend on the observation and on the episode's seed, so a mixed-up world would show."""

    def __init__(self, chunk_size: int = 2, version: int = 0) -> None:
        self.version = version
        self.chunk_size = chunk_size
        self.seeds: dict[int, int] = {}
        self.push = 0.0

    def load_weights(self, version: int, state_dict: Mapping[str, float]) -> None:
        self.version, self.push = version, state_dict["push"]

    def begin(self, worlds: Sequence[int], instructions: tuple[str, ...], seeds: tuple[int, ...]) -> None:
        self.seeds.update(zip(worlds, seeds, strict=True))

    def act(self, worlds: Sequence[int], observation: Observation) -> ActionChunk:
        actions = np.zeros((len(worlds), self.chunk_size, ACTION.size), np.float32)
        actions[:, :, 0] = 0.01 * np.array([self.seeds[n] % 50 for n in worlds])[:, None]
        actions[:, :, 2] = self.push
        actions[:, :, 1] = 0.1 * observation["state"][:, :1] + 0.01 * np.arange(self.chunk_size)
        return ActionChunk(actions=actions)


def contents(trajectories: Iterable[Trajectory]) -> dict[str, str]:
    """{spec id: hash of everything in its trajectory but the time it took}; fails where an id came twice."""
    found: dict[str, str] = {}
    for t in trajectories:
        assert t.spec.id not in found, f"{t.spec.id} came twice"
        arrays: list[NDArray[Any]] = [
            t.state,
            t.action,
            t.label,
            t.localization,
            t.reward,
            t.frame_step,
            t.decision_step,
        ]
        arrays += [t.frames[camera] for camera in sorted(t.frames)]
        arrays += [t.reward_terms[name] for name in sorted(t.reward_terms)]
        facts = (t.instruction, t.success, t.terminated, t.truncated, t.failure, t.policy_version)
        data = b"".join(array.tobytes() for array in arrays) + repr(facts).encode()
        found[t.spec.id] = hashlib.sha256(data).hexdigest()
    return found
