"""WarpTabletopWorld: a chunk on the device, as one graph: control law, physics and judgement of all its actions.

    find_bad_actions, begin_chunk, guard               once
    k times:    TICKS x [control_tick, physics]        an action
                judge_action                           its end

Nothing waits for the host within a chunk: a world whose episode ends is put back after each further tick. The host
learns the outcomes at the end of the chunk, by one copy.

Shape letters: N worlds, k actions of a chunk, S state dims, L localization dims.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import warp as wp
from numpy.typing import NDArray
from torch import Tensor

from envs.arrays import to_numpy
from envs.simulation.simulator import SimulatorMaker
from envs.tabletop.arm.control import TICKS
from envs.tabletop.kernels import control, judging
from envs.tabletop.kernels.layout import Chunk, Fields, Seen, episodes_of, layout_of
from envs.tabletop.world import SUBSTEPS, Record, TabletopConfig, TabletopWorld
from envs.types import Array, ChunkResult

_MOST_ACTIONS = 8
"""Actions in one graph, some 10,000 kernels; a longer chunk is several graphs."""


@dataclass(frozen=True, kw_only=True)
class _Buffers:
    """What the kernels of chunks of k actions read and write."""

    actions: Tensor
    """[N, k, A]"""
    results: Tensor
    """All that `chunk` points to, so that one copy takes it."""
    chunk: Chunk


class WarpTabletopWorld(TabletopWorld):
    """The tabletop suite on a WarpSim."""

    def __init__(
        self,
        num_worlds: int,
        config: TabletopConfig | None = None,
        make_simulator: SimulatorMaker | None = None,
        suite: str = "tabletop",
    ) -> None:
        """As TabletopWorld.

        Args:
            make_simulator: makes a WarpSim.
        """
        super().__init__(num_worlds, config, make_simulator, suite)
        device = self._state.device
        self._counters = torch.zeros(6, num_worlds, dtype=torch.int32, device=device)
        task, max_steps, steps, outcome, num_steps, step = self._counters
        outcome.fill_(judging.NONE)
        self._report = self._counters[3:5]
        self._chunk_counters = {"num_steps": num_steps, "step": step}
        self._is_bad = torch.zeros(1, dtype=torch.int32, device=device)
        self._begun = torch.zeros(num_worlds, dtype=torch.bool, device=device)
        counters = {"task": task, "max_steps": max_steps, "steps": steps, "outcome": outcome}
        self._episodes = episodes_of(self.sampled, counters)
        self._look_at = (
            layout_of(self.scene, self.config.cameras),
            _struct(Fields, self.sim.field | self.sim.model_field),
            self._episodes,
            self._seen(),
        )
        arm = control.arm_struct(self.config.arm, self.scene.tcp_site, wp.device_from_torch(device))
        self._aims = torch.zeros(num_worlds, 3, device=device), torch.zeros(num_worlds, 3, 3, device=device)
        self._robot = arm, _struct(control.Robot, self.sim.field), self._aim()
        self._buffers: dict[int, _Buffers] = {}

    def step_chunk(self, actions: Array, *, all_frames: bool = False, ended_frames: bool = True) -> ChunkResult:
        """See World.step_chunk. Ended worlds are always rendered: all are, in one launch."""
        del ended_frames
        self.check_action_shape(actions)
        actions = self.sim.on_device(actions)
        if not all_frames:
            worlds = self._running.alive()
            record = self._execute(actions)
            self._draw(worlds.tolist())
            return self._result(record)
        self.refuse_non_finite(to_numpy(actions), self._running.alive())
        records, frames = [], []
        for i in range(actions.shape[1]):
            worlds = self._running.alive()
            records.append(self._execute(actions[:, i : i + 1]))
            self._draw(worlds.tolist())
            frames.append(self._observation()["frames"])
        return self._result(_joined(records, frames))

    def _execute(self, actions: Tensor) -> Record:
        """Execute actions [N, k, A] in the running worlds, and take over how their episodes end."""
        num_actions = actions.shape[1]
        if num_actions not in self._buffers:
            self._buffers[num_actions] = self._new_buffers(num_actions)
        buffers = self._buffers[num_actions]
        buffers.actions.copy_(actions)
        for first in range(0, num_actions, _MOST_ACTIONS):
            size = min(_MOST_ACTIONS, num_actions - first)
            kernels = partial(self._kernels, buffers, first == 0, size)
            self.sim.launch(("chunk", num_actions, first == 0, size), kernels)
        report = torch.cat((self._report.flatten(), self._is_bad, self.sim.full)).tolist()
        *_, is_bad, full = report
        if is_bad:
            self._is_bad.zero_()
            self.refuse_non_finite(to_numpy(actions), self._running.alive())
        self.sim.refuse_full(bool(full))
        outcome, num_steps = np.array(report[:-2], np.int64).reshape(2, -1)
        self._conclude(outcome, num_steps)
        return self._record(buffers, num_steps)

    def _kernels(self, buffers: _Buffers, begins: bool, num_actions: int) -> None:
        """Launch the kernels of a chunk's next actions, or of its first."""
        actions, broken, moving = map(wp.from_torch, (buffers.actions, self.sim.broken, self.sim.moving))
        if begins:
            is_bad = wp.from_torch(self._is_bad)
            self._kernel(judging.find_bad_actions, actions, self._episodes, is_bad)
            self._kernel(judging.begin_chunk, actions, self._episodes, buffers.chunk, is_bad, broken, moving)
            self.sim.guard()
        for _ in range(num_actions):
            for tick in range(1, TICKS + 1):
                self._kernel(control.control_tick, *self._robot, actions, buffers.chunk.step, moving, tick)
                self.sim.advance(SUBSTEPS)
            self._kernel(judging.judge_action, *self._look_at, buffers.chunk, broken, moving)

    def _kernel(self, kernel: Any, *inputs: Any) -> None:
        wp.launch(kernel, self.num_envs, inputs)

    def _conclude(self, outcome: NDArray[np.int64], num_steps: NDArray[np.int64]) -> None:
        """Tell the host's Running what a chunk did; both [N]."""
        worlds = self._running.alive()
        self._running.steps[worlds] += num_steps[worlds]
        reasons = judging.BROKEN, judging.SUCCEEDED, judging.WRONG, judging.LOST
        self._running.judge(worlds, *(outcome[worlds] == reason for reason in reasons))

    def _record(self, buffers: _Buffers, num_steps: NDArray[np.int64]) -> Record:
        """A copy of a chunk's results."""
        states, localization, reward, *terms = self._parts(buffers.results.clone(), buffers.actions.shape[1])
        return Record(
            reward_terms=dict(zip(self._weights(), terms, strict=True)),
            reward=reward,
            states=states,
            localization=localization,
            num_steps=num_steps,
        )

    def _parts(self, results: Tensor, num_actions: int) -> list[Tensor]:
        """States, localization, reward and its terms as views of a chunk's results."""
        sizes = self.world_spec.state.size, self.world_spec.localization.size
        per_action = [(self.num_envs, num_actions)] * (1 + len(self._weights()))
        shapes = [*((self.num_envs, num_actions, size) for size in sizes), *per_action]
        parts = results.split([int(np.prod(shape)) for shape in shapes])
        return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]

    def _new_buffers(self, num_actions: int) -> _Buffers:
        device, spec = self._state.device, self.world_spec
        per_action = spec.state.size + spec.localization.size + 1 + len(self._weights())
        results = torch.zeros(self.num_envs * num_actions * per_action, device=device)
        states, localization, reward, *terms = self._parts(results, num_actions)
        chunk = Chunk()
        chunk.states, chunk.localization, chunk.reward = map(wp.from_torch, (states, localization, reward))
        terms_start = results.numel() - sum(term.numel() for term in terms)
        chunk.terms = wp.from_torch(results[terms_start:].view(len(terms), self.num_envs, num_actions))
        chunk.weights = wp.vec3(*self._weights().values())
        for name, values in self._chunk_counters.items():
            setattr(chunk, name, wp.from_torch(values))
        actions = torch.zeros(self.num_envs, num_actions, spec.action.size, device=device)
        return _Buffers(actions=actions, results=results, chunk=chunk)

    def _first_look(self, worlds: NDArray[np.int64]) -> None:
        """See TabletopWorld."""
        at = self.sim.on_device(worlds)
        begins = np.full(len(worlds), judging.RUNNING)
        values = self._running.tasks(worlds), self._running.max_steps(worlds), np.zeros_like(worlds), begins
        self._counters[:4, at] = self.sim.on_device(np.stack(values).astype(np.int32))
        self._begun.zero_()
        self._begun[at] = True
        begun = wp.from_torch(self._begun)
        self.sim.launch("look", lambda: self._kernel(judging.look_at, *self._look_at, begun))

    def _seen(self) -> Seen:
        made = Seen()
        made.state, made.localization = wp.from_torch(self._state), wp.from_torch(self._localization)
        return made

    def _aim(self) -> control.Aim:
        made = control.Aim()
        start, goal = self._aims
        made.start_pos, made.goal_mat = wp.from_torch(start, dtype=wp.vec3), wp.from_torch(goal, dtype=wp.mat33)
        return made


def _struct(kind: Any, fields: dict[str, Tensor]) -> Any:
    """A struct of that kind whose arrays share the memory of the simulator's fields of the same names."""
    made = kind()
    for name, variable in kind.vars.items():
        tensor, dtype = fields[name], variable.type.dtype
        if dtype == wp.mat33:
            tensor = tensor.unflatten(-1, (3, 3))
        setattr(made, name, wp.from_torch(tensor, dtype=dtype))
    return made


def _joined(records: Sequence[Record], frames: list[dict[str, Array]]) -> Record:
    """The record of a chunk from those of its actions, with the frames after each."""
    return Record(
        reward_terms={name: torch.cat([r.reward_terms[name] for r in records], 1) for name in records[0].reward_terms},
        reward=torch.cat([record.reward for record in records], 1),
        states=torch.cat([record.states for record in records], 1),
        localization=torch.cat([record.localization for record in records], 1),
        num_steps=np.sum([record.num_steps for record in records], axis=0),
        frames=frames,
    )
