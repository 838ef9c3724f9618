"""MetaworldWorld: N Meta-World environments, each running any of its tasks in its own process.

Shape letters: N worlds, k actions executed of a chunk, A action dims, S state dims, L localization dims.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.arrays import to_numpy
from envs.suites.metaworld import tasks
from envs.suites.metaworld.sensor import ACTION, FAST, PUBLISHED, STATE, Sensor
from envs.suites.metaworld.subprocesses import Subprocesses, metaworld_python
from envs.types import Array, ChunkResult, EpisodeSpec, Info, Observation
from envs.world import World

SUITE = "metaworld"
MAX_STEPS = 400
"""As in LeRobot's config and Evo-1; the suite's own limit is 500."""


@dataclass(frozen=True, kw_only=True)
class MetaworldConfig:
    """Tasks, sensor, reward weights and step limit."""

    tasks: tuple[str, ...] = tuple(tasks.TASKS)
    sensor: Sensor = FAST
    max_steps: int = MAX_STEPS
    """At most 500. An episode ends with its first success."""
    success_weight: float = 1.0
    """Weight of the reward term "success": 1 in the step in which the task succeeds."""
    dense_weight: float = 0.0
    """Weight of the reward term "dense": the suite's own shaped reward, divided by its maximum, 10."""


WORLDS = {
    "metaworld-mt10": MetaworldConfig(tasks=tasks.MT10),
    "metaworld-mt50": MetaworldConfig(),
    "metaworld-mt10-published": MetaworldConfig(tasks=tasks.MT10, sensor=PUBLISHED),
    "metaworld-mt50-published": MetaworldConfig(sensor=PUBLISHED),
}
"""{name for `make_world`: config}."""


class MetaworldWorld(World):
    """Meta-World as a World. Its processes start with the first episode."""

    def __init__(self, num_worlds: int, config: MetaworldConfig | None = None) -> None:
        """N worlds without an episode.

        Raises:
            UserError: the interpreter with Meta-World or a task does not exist.
        """
        self.config = config = config or MetaworldConfig()
        metaworld_python()
        super().__init__(
            num_worlds=num_worlds, world_spec=config.sensor.world_spec, suite=SUITE, tasks=tuple(config.tasks)
        )
        kept = {split: tuple(task for task in of if task in config.tasks) for split, of in tasks.SPLITS.items()}
        self.task_groups = {split: of for split, of in kept.items() if of}
        self._processes: Subprocesses | None = None
        self._frames = {c.name: np.zeros((num_worlds, c.height, c.width, 3), np.uint8) for c in config.sensor.cameras}
        self._state = np.zeros((num_worlds, STATE.size), np.float32)
        self._localization = np.zeros((num_worlds, self.world_spec.localization.size), np.float32)
        self._expert = np.zeros((num_worlds, ACTION.size), np.float32)
        self._instruction = [""] * num_worlds
        self._begun = np.zeros(num_worlds, bool)
        self._terminated = np.zeros(num_worlds, bool)
        self._truncated = np.zeros(num_worlds, bool)
        self._success = np.zeros(num_worlds, bool)
        self._failure: list[str | None] = [None] * num_worlds

    def variations_of(self, task: str) -> tuple[str, ...]:
        del task
        return tuple(tasks.VARIATIONS)

    def reset_to(self, specs: Sequence[EpisodeSpec], worlds: Sequence[int]) -> tuple[Observation, Info]:
        self.check_reset(specs, worlds)
        requests = {n: {"do": "begin", "task": s.task, "seed": s.seed} for n, s in zip(worlds, specs, strict=True)}
        replies = self._ask(requests)
        for n, spec in zip(worlds, specs, strict=True):
            reply = replies[n]
            self._state[n], self._localization[n] = reply["state"], reply["localization"]
            self._expert[n] = reply["expert"]
            self._instruction[n] = tasks.instruction(spec.task, spec.variation)
            self._begun[n] = True
            self._terminated[n] = self._truncated[n] = self._success[n] = False
            self._failure[n] = None
        self._copy_frames(list(worlds))
        return self._observation(), {"localization": self._localization.copy()}

    def step_chunk(self, actions: Array, *, all_frames: bool = False, ended_frames: bool = True) -> ChunkResult:
        actions = self._checked(actions)
        shape = actions.shape[:2]
        record = _Record(
            states=np.repeat(self._state[:, None], shape[1], axis=1),
            localization=np.repeat(self._localization[:, None], shape[1], axis=1),
            dense=np.zeros(shape, np.float32),
            success=np.zeros(shape, np.float32),
            num_steps=np.zeros(shape[0], np.int64),
        )
        frames: list[dict[str, NDArray[np.uint8]]] = []
        if not all_frames:
            self._execute(actions, record, 0, render_ended=ended_frames)
        else:
            for i in range(actions.shape[1]):
                self._execute(actions[:, i : i + 1], record, i, render_ended=True)
                frames.append({name: latest.copy() for name, latest in self._frames.items()})
        return self._result(record, frames)

    def expert_action(self) -> Array:
        """The suite's scripted policy, clipped."""
        return np.where(self._alive[:, None], self._expert, np.float32(0.0))

    def close_extras(self, **kwargs: object) -> None:
        """End the processes."""
        del kwargs
        if self._processes is not None:
            self._processes.close()
            self._processes = None

    @property
    def _alive(self) -> NDArray[np.bool_]:
        return self._begun & ~self._terminated & ~self._truncated

    def _ask(self, requests: dict[int, dict[str, Any]]) -> dict[int, dict[str, Any]]:
        if self._processes is None:
            self._processes = Subprocesses(self.num_envs, self.config.sensor, self.config.max_steps)
        return self._processes.ask(requests)

    def _checked(self, actions: Array) -> NDArray[np.float32]:
        self.check_action_shape(actions)
        actions = to_numpy(actions).astype(np.float32)
        self.refuse_non_finite(actions, np.flatnonzero(self._alive))
        return np.clip(np.nan_to_num(actions), -1.0, 1.0)

    def _execute(self, actions: NDArray[np.float32], record: _Record, first: int, *, render_ended: bool) -> None:
        """Execute the chunk's actions from `first` on in every world that runs an episode; actions: [N, k, A]."""
        alive = np.flatnonzero(self._alive).tolist()
        requests = {n: {"do": "step", "actions": actions[n].tolist(), "render_ended": render_ended} for n in alive}
        for n, reply in self._ask(requests).items() if requests else ():
            end = first + len(reply["states"])
            record.states[n, first:end], record.states[n, end:] = reply["states"], reply["states"][-1]
            record.localization[n, first:end] = reply["localization"]
            record.localization[n, end:] = reply["localization"][-1]
            record.dense[n, first:end] = reply["dense"]
            record.success[n, end - 1] = reply["success"]
            record.num_steps[n] = end
            self._state[n], self._localization[n] = record.states[n, -1], record.localization[n, -1]
            self._expert[n] = reply["expert"]
            self._success[n], self._failure[n] = reply["success"], reply["failure"]
            self._terminated[n] = reply["success"] or reply["failure"] is not None
            self._truncated[n] = reply["truncated"]
        self._copy_frames(alive)

    def _copy_frames(self, worlds: list[int]) -> None:
        for ours, rendered in zip(
            self._frames.values(), self._processes.frames if self._processes else (), strict=True
        ):
            ours[worlds] = rendered[worlds]

    def _observation(self) -> Observation:
        return {
            "frames": {name: frames.copy() for name, frames in self._frames.items()},
            "state": self._state.copy(),
            "instruction": tuple(self._instruction),
        }

    def _result(self, record: _Record, frames: list[dict[str, NDArray[np.uint8]]]) -> ChunkResult:
        success = self.config.success_weight * record.success
        return ChunkResult(
            observation=self._observation(),
            reward_terms={"success": record.success, "dense": record.dense},
            reward=(success + self.config.dense_weight * record.dense).astype(np.float32),
            states=record.states,
            localization=record.localization,
            num_steps=record.num_steps,
            terminated=self._terminated.copy(),
            truncated=self._truncated.copy(),
            success=self._success.copy(),
            failure=tuple(self._failure),
            all_frames={name: np.stack([f[name] for f in frames], axis=1) for name in self._frames} if frames else None,
        )


@dataclass(frozen=True)
class _Record:
    """Results of a chunk, filled step by step; after an episode's end its last state is repeated."""

    states: NDArray[np.float32]  # [N, k, S]
    localization: NDArray[np.float32]  # [N, k, L]
    dense: NDArray[np.float32]  # [N, k]
    success: NDArray[np.float32]  # [N, k]
    num_steps: NDArray[np.int64]  # [N]
