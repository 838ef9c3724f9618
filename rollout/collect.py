"""Policy x World -> trajectories: the rollout loop of workers, evaluation and tests.

All worlds that run an episode act in one batch: the policy predicts a chunk, the world executes its first k actions,
and worlds whose episode ended begin the next spec before the next chunk. No world waits for another's episode, and
once no spec is left, the policy runs only for the worlds whose episodes continue.

Observations and actions keep the array type of the world and the policy (numpy, or torch on a device); recorded data is
copied to the host once per decision, for all worlds together.

An episode depends on its spec, the policy and the world. The index of its world and the rest of the batch change at
most the last bits of floating point, if the policy's arithmetic rounds differently in a smaller batch.

An episode whose world failed or returned a number that is not finite, or for which the policy has no action, is yielded
without rows, with `broken` set and the reason as its failure; the other episodes continue.

Shape letters: N worlds, n that run an episode, k actions executed of a chunk, T control steps, F recorded frames,
A action dims, S state dims, L localization dims, H x W pixels.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from operator import itemgetter
from typing import Any

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from envs.arrays import on_host, rows_of, to_numpy
from envs.errors import UserError
from envs.types import Array, ChunkResult, EpisodeSpec, Observation, WorldSpec
from envs.world import World
from rollout.broken_worlds import POLICY_FAILED, WORLD_FAILED, broken_at_reset, broken_in_chunk
from rollout.types import Trajectory
from vla_model.types import ActionChunk, Policy


def collect(
    policy: Policy,
    world: World,
    specs: Iterable[EpisodeSpec],
    *,
    n_action_steps: int | None = None,
    all_frames: bool = False,
) -> Iterator[Trajectory]:
    """Run every spec once and yield its trajectory when its episode ends (not in the order of the specs).

    Args:
        policy: called once per chunk for all worlds that run an episode; `begin` gets the policy_seed of each spec that
            starts.
        world: its N worlds are reset here; episodes that ran in them are dropped.
        specs: read lazily, one for each idle world.
        n_action_steps: number of actions of each chunk to execute; None for the whole chunk.
        all_frames: record the frame before every action (F = T) and after the last one, not only those at decisions.

    Raises:
        UserError: n_action_steps is not within 1..chunk size, or the policy's chunk has a wrong shape.
    """
    remaining = iter(specs)
    episodes: dict[int, _Episode] = {}
    observation: Observation | None = None
    localization = np.zeros((world.num_envs, 0), np.float32)  # [N, L]
    while True:
        began_s = time.perf_counter()
        idle = [n for n in range(world.num_envs) if n not in episodes]
        fresh = list(islice(remaining, len(idle)))
        if fresh:
            worlds = idle[: len(fresh)]
            observation, info = world.reset_to(fresh, worlds)
            localization = info["localization"]
            begun = {
                n: _Episode(spec, observation["instruction"][n], policy.version)
                for n, spec in zip(worlds, fresh, strict=True)
            }
            for n, reason in broken_at_reset(worlds, observation, info).items():
                yield begun.pop(n).broken(f"{WORLD_FAILED}: {reason}", world.world_spec)
            _begin(policy, begun)
            episodes |= begun
        if not episodes:
            if fresh:
                continue
            return
        assert observation is not None
        live = sorted(episodes)
        steps = np.array([episodes[n].num_steps for n in live], np.int64)
        observed = Observation(**(rows_of(observation, live) | {"step": steps}))
        asked_s = time.perf_counter()
        chunk = policy.act(live, observed)
        act_s = time.perf_counter() - asked_s
        if chunk.failed:
            for row, reason in chunk.failed.items():
                yield episodes.pop(live[row]).broken(f"{POLICY_FAILED}: {reason}", world.world_spec)
            sound = [row for row in range(len(live)) if row not in chunk.failed]
            live = [live[row] for row in sound]
            if not live:
                continue
            chunk, observed = chunk.map(itemgetter(sound)), rows_of(observed, sound)
        actions, labels = _executed_part(chunk, (len(live), world.world_spec.action.size), n_action_steps)
        # The observation may be a view of buffers that the step overwrites, so it is recorded before.
        recorded, labels_of = on_host(observed), to_numpy(localization)
        for row, n in enumerate(live):
            episodes[n].add_decision(row, recorded, labels_of[n], act_s)
            if chunk.expert_usage is not None:
                episodes[n].expert_usage.append(chunk.expert_usage[row].copy())
        all_actions = _scattered(actions, live, world.num_envs)
        result = _on_host(world.step_chunk(all_actions, all_frames=all_frames, ended_frames=False))
        share_s = (time.perf_counter() - began_s) / len(live)
        executed = {"action": to_numpy(actions), "label": to_numpy(labels)} | _sampled(chunk)
        for n, reason in broken_in_chunk(result, {n: episode.num_steps for n, episode in episodes.items()}).items():
            yield episodes.pop(n).broken(f"{WORLD_FAILED}: {reason}", world.world_spec)
        for row, n in enumerate(live):
            if n in episodes:
                episodes[n].add_chunk(n, row, executed, result, share_s)
        observation, localization = result.observation, result.localization[:, -1]
        for n in [n for n in episodes if result.done[n]]:
            yield episodes.pop(n).finish(n, result)


def _begin(policy: Policy, episodes: dict[int, _Episode]) -> None:
    """Call `policy.begin` for the episodes that start, {world: episode}."""
    if episodes:
        instructions = tuple(episode.instruction for episode in episodes.values())
        seeds = tuple(episode.spec.policy_seed for episode in episodes.values())
        policy.begin(list(episodes), instructions, seeds)
        for episode in episodes.values():
            episode.policy_version = policy.version  # `begin` may update it


def _scattered(actions: Array, live: Sequence[int], num_worlds: int) -> Array:
    """Actions [n, k, A] of the live worlds -> [N, k, A], zeros for worlds that run no episode."""
    if len(live) == num_worlds:
        return actions
    xp = array_namespace(actions)
    scattered = xp.zeros((num_worlds, *actions.shape[1:]), dtype=actions.dtype, device=actions.device)
    scattered[list(live)] = actions
    return scattered


def _on_host(result: ChunkResult) -> ChunkResult:
    """The recorded fields of a result as numpy; the observation stays on its device for the policy."""
    all_frames = result.all_frames
    return dataclasses.replace(
        result,
        reward_terms={name: to_numpy(term) for name, term in result.reward_terms.items()},
        reward=to_numpy(result.reward),
        states=to_numpy(result.states),
        localization=to_numpy(result.localization),
        all_frames=None if all_frames is None else {camera: to_numpy(frames) for camera, frames in all_frames.items()},
    )


def _executed_part(chunk: ActionChunk, expected: tuple[int, int], n_action_steps: int | None) -> tuple[Array, Array]:
    """The actions to execute and their labels, both [n, k, A], clipped to [-1, 1] as the world does.

    Args:
        chunk: of the policy.
        expected: (n, A).
        n_action_steps: k; None for the whole chunk.
    """
    shape = chunk.actions.shape
    if len(shape) != 3 or (shape[0], shape[2]) != expected:
        raise UserError(f"the policy's actions have shape {shape}, expected ({expected[0]}, K, {expected[1]})")
    k = shape[1] if n_action_steps is None else n_action_steps
    if not 1 <= k <= shape[1]:
        raise UserError(f"n_action_steps must be within 1..{shape[1]}, the policy's chunk size, got {n_action_steps}")
    actions = _clipped(chunk.actions[:, :k])
    if chunk.labels is None:
        return actions, actions
    if chunk.labels.shape != shape:
        raise UserError(f"the policy's labels have shape {chunk.labels.shape}, its actions {shape}")
    return actions, _clipped(chunk.labels[:, :k])


def _final_frames(n: int, result: ChunkResult) -> dict[str, NDArray[np.uint8]] | None:
    """{camera: [H, W, 3]} of world n after its last action; None unless every frame was rendered."""
    if result.all_frames is None:
        return None
    return {camera: frames[n, result.num_steps[n] - 1].copy() for camera, frames in result.all_frames.items()}


def _sampled(chunk: ActionChunk) -> dict[str, NDArray[np.float32]]:
    """What a policy that samples its actions says about them, each [n, K, ...]."""
    recorded = {"sampled": chunk.sampled, "log_prob": chunk.log_prob, "value": chunk.value}
    return {name: to_numpy(values) for name, values in recorded.items() if values is not None}


def _clipped(actions: Array) -> Array:
    xp = array_namespace(actions)
    return xp.astype(actions, xp.float32, copy=False).clip(-1.0, 1.0)


@dataclass
class _Episode:
    """A running episode: blocks of rows, concatenated at its end."""

    spec: EpisodeSpec
    instruction: str
    policy_version: int
    num_steps: int = 0
    duration_s: float = 0.0
    frames: dict[str, list[NDArray[np.uint8]]] = field(default_factory=dict)
    frame_step: list[int] = field(default_factory=list)
    decision_step: list[int] = field(default_factory=list)
    decision_s: list[float] = field(default_factory=list)
    columns: dict[str, list[NDArray[np.float32]]] = field(default_factory=dict)
    expert_usage: list[NDArray[np.float32]] = field(default_factory=list)

    def add_decision(self, row: int, observation: Observation, localization: NDArray[np.float32], act_s: float) -> None:
        """Record a row of the observation at a decision.

        Args:
            row: of the observation.
            observation: of the live worlds, on the host.
            localization: labels of this row's world, [L].
            act_s: duration of the call of the policy, for all live worlds.
        """
        self.decision_step.append(self.num_steps)
        self.decision_s.append(act_s)
        self.frame_step.append(self.num_steps)
        for camera, frames in observation["frames"].items():
            self.frames.setdefault(camera, []).append(frames[row : row + 1].copy())  # [1, H, W, 3]
        self._add("state", observation["state"][row : row + 1])  # [1, S]
        self._add("localization", localization[None])  # [1, L]

    def add_chunk(
        self, n: int, row: int, executed: dict[str, NDArray[np.float32]], result: ChunkResult, duration_s: float
    ) -> None:
        """Record the steps of a chunk in world n; the observation after the last one is recorded by the next decision.

        Args:
            n: the world.
            row: of `executed`.
            executed: columns over the actions of the chunk, each [n, k or K, ...]; those after an episode's end too.
            result: of all N worlds.
            duration_s: wall-clock time of this world's share.
        """
        m, k = int(result.num_steps[n]), executed["action"].shape[1]
        assert 1 <= m <= k, f"world {n} runs an episode, but executed {m} of {k} actions"
        for name, values in executed.items():
            self._add(name, values[row, :m])
        self._add("reward", result.reward[n, :m])
        for name, term in result.reward_terms.items():
            self._add(f"term/{name}", term[n, :m])
        self._add("state", result.states[n, : m - 1])
        self._add("localization", result.localization[n, : m - 1])
        if result.all_frames is not None:
            self.frame_step.extend(range(self.num_steps + 1, self.num_steps + m))
            for camera, frames in result.all_frames.items():
                self.frames[camera].append(frames[n, : m - 1].copy())  # [m-1, H, W, 3]
        self.num_steps += m
        self.duration_s += duration_s

    def finish(self, n: int, result: ChunkResult) -> Trajectory:
        return self._trajectory(
            {name: np.concatenate(blocks) for name, blocks in self.columns.items()},
            {camera: np.concatenate(blocks) for camera, blocks in self.frames.items()},
            success=bool(result.success[n]),
            terminated=bool(result.terminated[n]),
            truncated=bool(result.truncated[n]),
            failure=result.failure[n],
            final_frames=_final_frames(n, result),
            expert_usage=np.stack(self.expert_usage) if self.expert_usage else None,
        )

    def broken(self, reason: str, world_spec: WorldSpec) -> Trajectory:
        """The trajectory of an episode whose world or policy failed: the reason, and no rows."""
        self.frame_step, self.decision_step, self.decision_s = [], [], []
        sizes = {name: getattr(world_spec, name).size for name in ("state", "action", "localization")}
        columns = {name: np.zeros((0, size), np.float32) for name, size in sizes.items()}
        return self._trajectory(
            columns | {"label": columns["action"], "reward": np.zeros(0, np.float32)},
            {c.name: np.zeros((0, c.height, c.width, 3), np.uint8) for c in world_spec.cameras},
            success=False,
            terminated=True,
            truncated=False,
            failure=reason,
            broken=True,
        )

    def _trajectory(self, columns: dict[str, Any], frames: dict[str, NDArray[np.uint8]], **end: Any) -> Trajectory:
        terms = {name.removeprefix("term/"): columns.pop(name) for name in list(columns) if name.startswith("term/")}
        return Trajectory(
            spec=self.spec,
            instruction=self.instruction,
            frames=frames,
            frame_step=np.array(self.frame_step, np.int64),
            decision_step=np.array(self.decision_step, np.int64),
            decision_s=np.array(self.decision_s, np.float64),
            reward_terms=terms,
            policy_version=self.policy_version,
            duration_s=self.duration_s,
            **columns,
            **end,
        )

    def _add(self, name: str, block: NDArray[np.float32]) -> None:
        self.columns.setdefault(name, []).append(block.copy())
