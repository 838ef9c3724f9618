"""HostedWorld: N worlds of a suite, each simulated by its own process in the suite's interpreter.

Shape letters: N worlds, k actions executed of a chunk, A action dims, S state dims, L localization dims.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.arrays import to_numpy
from envs.suites.hosted.interpreter import Launch
from envs.suites.hosted.subprocesses import Subprocesses
from envs.types import Array, ChunkResult, EpisodeSpec, Info, Observation, WorldSpec
from envs.world import World


class HostedWorld(World):
    """A suite's worlds; a subclass gives their spec and what runs in the processes.

    The expert is asked for an action only when `expert_action` is called, and once in a state.

    If a process dies or a call is interrupted, all processes end and no world runs an episode; the next `reset_to`
    starts new ones.
    """

    def __init__(
        self,
        *,
        num_worlds: int,
        world_spec: WorldSpec,
        suite: str,
        tasks: tuple[str, ...],
        launch: Launch,
        reward_weights: Mapping[str, float],
        processes: Subprocesses | None = None,
    ) -> None:
        """N worlds without an episode.

        Args:
            launch: what the processes run.
            reward_weights: {reward term: weight} of all terms that the simulation returns.
            processes: those of `launch`, if they run; else they start with the first episode.

        Raises:
            UserError: `num_worlds` is below 1.
        """
        super().__init__(num_worlds=num_worlds, world_spec=world_spec, suite=suite, tasks=tasks)
        self._launch = launch
        self._reward_weights = dict(reward_weights)
        self._frames = {c.name: np.zeros((num_worlds, c.height, c.width, 3), np.uint8) for c in world_spec.cameras}
        self._state = np.zeros((num_worlds, world_spec.state.size), np.float32)
        self._localization = np.zeros((num_worlds, world_spec.localization.size), np.float32)
        self._expert: dict[int, list[float]] = {}  # {world: the expert's action in its state}, of those asked
        self._instruction = [""] * num_worlds
        self._begun = np.zeros(num_worlds, bool)
        self._terminated = np.zeros(num_worlds, bool)
        self._truncated = np.zeros(num_worlds, bool)
        self._success = np.zeros(num_worlds, bool)
        self._failure: list[str | None] = [None] * num_worlds
        self._broken: set[int] = set()
        self._processes: Subprocesses | None = None
        if processes is not None:
            self._use(processes)

    def reset_to(self, specs: Sequence[EpisodeSpec], worlds: Sequence[int]) -> tuple[Observation, Info]:
        self.check_reset(specs, worlds)
        requests = {n: {"do": "begin", "spec": _content(s)} for n, s in zip(worlds, specs, strict=True)}
        replies = self._ask(requests)
        for n, reply in replies.items():
            self._begin(n, reply)
        self._copy_frames([n for n in worlds if n not in self._broken])
        failed = {n: reply["broken"] for n, reply in replies.items() if n in self._broken}
        return self._observation(), {"localization": self._localization.copy(), "broken": failed}

    def step_chunk(self, actions: Array, *, all_frames: bool = False, ended_frames: bool = True) -> ChunkResult:
        actions = self._checked(actions)
        shape = actions.shape[:2]
        record = _Record(
            states=np.repeat(self._state[:, None], shape[1], axis=1),
            localization=np.repeat(self._localization[:, None], shape[1], axis=1),
            rewards={term: np.zeros(shape, np.float32) for term in self._reward_weights},
            num_steps=np.zeros(shape[0], np.int64),
        )
        if not all_frames:
            self._execute(actions, record, 0, render_ended=ended_frames)
        else:
            for i in range(actions.shape[1]):
                self._execute(actions[:, i : i + 1], record, i, render_ended=True)
                record.frames.append({name: latest.copy() for name, latest in self._frames.items()})
        return self._result(record)

    def expert_action(self) -> Array:
        """The suite's scripted policy, clipped.

        Raises:
            NotImplementedError: it has none.
        """
        alive = np.flatnonzero(self._alive).tolist()
        asked = {n: {"do": "expert"} for n in alive if n not in self._expert}
        for n, reply in self._ask(asked).items():
            if "broken" in reply:
                self._break(n, reply["broken"])
            else:
                self._expert[n] = reply["expert"]
        actions = np.zeros((self.num_envs, self.world_spec.action.size), np.float32)
        for n, action in self._expert.items():
            actions[n] = action
        return actions

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
        if not requests:
            return {}
        if self._processes is None:
            self._use(Subprocesses(self.num_envs, self._launch))
        assert self._processes is not None
        try:
            return self._processes.ask(requests)
        finally:
            if self._processes.closed:
                self._processes = None
                self._begun[:] = False

    def _use(self, processes: Subprocesses) -> None:
        try:
            processes.share([(camera.height, camera.width) for camera in self.world_spec.cameras])
        except BaseException:
            processes.close()
            raise
        self._processes = processes

    def _begin(self, n: int, reply: dict[str, Any]) -> None:
        self._begun[n] = True
        self._terminated[n] = self._truncated[n] = self._success[n] = False
        self._failure[n] = None
        self._expert.pop(n, None)
        self._broken.discard(n)
        if "broken" in reply:  # it must not show data of the previous episode
            self._break(n, reply["broken"])
            self._instruction[n] = ""
            for values in (self._state, self._localization, *self._frames.values()):
                values[n] = 0
            return
        self._state[n], self._localization[n] = reply["state"], reply["localization"]
        self._instruction[n] = reply["instruction"]

    def _break(self, n: int, reason: str) -> None:
        """End the episode of world n by an error of its environment."""
        self._expert.pop(n, None)
        self._failure[n] = reason
        self._terminated[n] = True
        self._truncated[n] = self._success[n] = False
        self._broken.add(n)

    def _checked(self, actions: Array) -> NDArray[np.float32]:
        self.check_action_shape(actions)
        actions = to_numpy(actions).astype(np.float32)
        self.refuse_non_finite(actions, np.flatnonzero(self._alive))
        return np.clip(np.nan_to_num(actions), -1.0, 1.0)

    def _execute(self, actions: NDArray[np.float32], record: _Record, first: int, *, render_ended: bool) -> None:
        """Execute the chunk's actions from `first` on in every world that runs an episode; actions: [N, k, A]."""
        alive = np.flatnonzero(self._alive).tolist()
        requests = {n: {"do": "step", "actions": actions[n].tolist(), "render_ended": render_ended} for n in alive}
        for n, reply in self._ask(requests).items():
            self._expert.pop(n, None)
            if "states" in reply:
                record.add(n, first, reply)
                self._state[n], self._localization[n] = record.states[n, -1], record.localization[n, -1]
                self._success[n], self._failure[n] = reply["success"], reply["failure"]
                self._terminated[n] = reply["success"] or reply["failure"] is not None
                self._truncated[n] = reply["truncated"]
            if "broken" in reply:
                self._break(n, reply["broken"])
        self._copy_frames(alive)

    def _copy_frames(self, worlds: list[int]) -> None:
        rendered = self._processes.frames if self._processes and worlds else ()
        for ours, theirs in zip(self._frames.values(), rendered, strict=bool(worlds)):
            ours[worlds] = theirs[worlds]

    def _observation(self) -> Observation:
        return {
            "frames": {name: frames.copy() for name, frames in self._frames.items()},
            "state": self._state.copy(),
            "instruction": tuple(self._instruction),
        }

    def _result(self, record: _Record) -> ChunkResult:
        weighted = [self._reward_weights[term] * rewards for term, rewards in record.rewards.items()]
        return ChunkResult(
            observation=self._observation(),
            reward_terms=record.rewards,
            reward=np.sum(weighted, axis=0, dtype=np.float32),
            states=record.states,
            localization=record.localization,
            num_steps=record.num_steps,
            terminated=self._terminated.copy(),
            truncated=self._truncated.copy(),
            success=self._success.copy(),
            failure=tuple(self._failure),
            broken=frozenset(self._broken),
            all_frames=record.all_frames,
        )


def _content(spec: EpisodeSpec) -> dict[str, Any]:
    """The fields, as JSON can hold them: NumPy's integers are none of its numbers."""
    return asdict(spec) | {"seed": int(spec.seed), "repeat": int(spec.repeat)}


@dataclass(frozen=True)
class _Record:
    """Results of a chunk, filled step by step; after an episode's end its last state is repeated."""

    states: NDArray[np.float32]  # [N, k, S]
    localization: NDArray[np.float32]  # [N, k, L]
    rewards: dict[str, NDArray[np.float32]]  # {term: [N, k]}
    num_steps: NDArray[np.int64]  # [N]
    frames: list[dict[str, NDArray[np.uint8]]] = field(default_factory=list)  # {camera: [N, H, W, 3]} per action

    def add(self, n: int, first: int, reply: dict[str, Any]) -> None:
        """World n's reply to the chunk's actions from `first` on."""
        end = first + len(reply["states"])
        if end > first:
            self.states[n, first:end], self.states[n, end:] = reply["states"], reply["states"][-1]
            self.localization[n, first:end] = reply["localization"]
            self.localization[n, end:] = reply["localization"][-1]
        for term, rewards in self.rewards.items():
            rewards[n, first:end] = reply["rewards"][term]
        self.num_steps[n] = end

    @property
    def all_frames(self) -> dict[str, NDArray[np.uint8]] | None:
        """{camera: [N, k, H, W, 3]}, or None."""
        if not self.frames:
            return None
        return {name: np.stack([f[name] for f in self.frames], axis=1) for name in self.frames[0]}
