"""TabletopWorld: N tables, each running any task of the suite.

Shape letters: N worlds, n of them in a group, k actions executed of a chunk, A action dims, S state dims,
L localization dims, O objects.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from envs.arm import ArmSpec
from envs.arrays import constant, to_numpy
from envs.errors import UserError
from envs.simulation.cpu import CpuSim
from envs.simulation.simulator import SimulatorMaker, SimulatorSpec
from envs.tabletop import terms
from envs.tabletop.arm import control
from envs.tabletop.arm.panda import PANDA
from envs.tabletop.episodes import phases
from envs.tabletop.episodes.episode import Episode
from envs.tabletop.episodes.layout import sample_episode
from envs.tabletop.episodes.placing import PER_EPISODE_MODEL_FIELDS, initial_fields
from envs.tabletop.episodes.reading import SampledEpisodes, read_state, read_view, state_spec
from envs.tabletop.episodes.task import Task, View
from envs.tabletop.episodes.variations import VARIATIONS
from envs.tabletop.running import Running
from envs.tabletop.scene.labels import LOCALIZATION, read_labels
from envs.tabletop.scene.scene import CAMERAS, PHYSICS_DT_S, build_scene
from envs.tabletop.tasks import SUITES
from envs.types import Array, CameraSpec, ChunkResult, EpisodeSpec, Info, Observation, WorldSpec
from envs.world import World

SUBSTEPS = round(control.CONTROL_DT_S / PHYSICS_DT_S / control.TICKS)
"""Physics steps per controller tick."""


@dataclass(frozen=True, kw_only=True)
class TabletopConfig:
    """How the suite is simulated and rewarded."""

    arm: ArmSpec = PANDA
    cameras: tuple[CameraSpec, ...] = CAMERAS
    success_weight: float = 1.0
    """Weight of the reward term "success": 1 in the step in which the task succeeds."""
    reach_weight: float = 0.0
    """Weight of the reward term "reach": near(fingertips, target) in every step."""
    progress_weight: float = 0.0
    """Weight of the reward term "progress": near(target, goal) in every step."""
    num_threads: int = 1
    """Threads for physics; rendering uses one."""
    max_steps: int | None = None
    """Step limit of every episode; None uses its task's."""


_FIELDS = ("qpos", "qvel", "ctrl", "xaxis", "xanchor", "site_xpos", "site_xmat", "geom_xpos", "cam_xpos", "cam_xmat")
"""Fields of MjData that are read; ctrl is also written."""


@dataclass(kw_only=True)
class Record:
    """Results of a chunk."""

    reward_terms: dict[str, Array]  # [N, k]
    reward: Array  # [N, k]
    states: Array  # [N, k, S]
    localization: Array  # [N, k, L]
    num_steps: NDArray[np.int64]  # [N]
    frames: list[dict[str, Array]] = field(default_factory=list)


class TabletopWorld(World):
    """The tabletop suite."""

    def __init__(
        self,
        num_worlds: int,
        config: TabletopConfig | None = None,
        make_simulator: SimulatorMaker | None = None,
        suite: str = "tabletop",
    ) -> None:
        """N tables without an episode.

        Args:
            config: simulation, rewards and arm.
            make_simulator: makes the simulator; None uses the CPU.
            suite: a key of SUITES, whose tasks these worlds run.

        Raises:
            UserError: an arm that does not fit the table (`build_scene`).
        """
        self.config = config or TabletopConfig()
        self.arm = self.config.arm
        spec = WorldSpec(
            cameras=self.config.cameras,
            state=state_spec(self.arm),
            action=control.action_spec(self.arm),
            localization=LOCALIZATION,
            control_dt_s=control.CONTROL_DT_S,
        )
        super().__init__(num_worlds=num_worlds, world_spec=spec, suite=suite, tasks=tuple(SUITES[suite]))
        self.scene = build_scene(self.arm)
        make_simulator = make_simulator or functools.partial(CpuSim, num_threads=self.config.num_threads)
        self.sim: Any = make_simulator(  # a Simulator; typed Any because callers use members of the concrete class
            SimulatorSpec(
                model=self.scene.model,
                num_sims=num_worlds,
                cameras=self.config.cameras,
                fields=_FIELDS,
                per_sim_model_fields=PER_EPISODE_MODEL_FIELDS,
            )
        )
        self._running = Running(num_worlds, self.config.max_steps)
        self._has_signals = any(task.has_signals for task in SUITES[suite].values())
        self.sampled = SampledEpisodes.zeros(num_worlds, self.sim.on_device)
        self._frames = {c.name: self._zeros(c.height, c.width, 3, dtype=np.uint8) for c in self.config.cameras}
        self._state = self._zeros(spec.state.size)
        self._tcp = slice(spec.state.position[0], spec.state.position[-1] + 1)
        self._localization = self._zeros(LOCALIZATION.size)

    def episode(self, world: int) -> Episode:
        """The sampled episode that runs (or ran last) in that world.

        Raises:
            UserError: no episode has begun there.
        """
        episode = self._running.episodes[world]
        if episode is None:
            raise UserError(f"world {world} has not begun an episode; call reset first")
        return episode

    def task_of(self, spec: EpisodeSpec) -> Task:
        """The task of a spec.

        Raises:
            UserError: see `check_spec`.
        """
        self.check_spec(spec)
        return SUITES[self.suite][spec.task]

    def variations_of(self, task: str) -> tuple[str, ...]:
        del task
        return VARIATIONS

    def reset_to(self, specs: Sequence[EpisodeSpec], worlds: Sequence[int]) -> tuple[Observation, Info]:
        self.check_reset(specs, worlds)
        episodes = [sample_episode(spec, self.task_of(spec), len(self.config.arm.joints)) for spec in specs]
        if episodes:
            worlds = list(worlds)
            self._running.begin(worlds, episodes)
            self.sampled.write(self.sim.on_device(np.array(worlds)), episodes, self.scene, self.sim.on_device)
            self.sim.begin(worlds, initial_fields(self.scene, episodes))
            self._first_look(np.array(sorted(worlds)))
            self._draw(sorted(worlds))
        return self._observation(), {"localization": _copy(self._localization)}

    def step_chunk(self, actions: Array, *, all_frames: bool = False, ended_frames: bool = True) -> ChunkResult:
        actions = self._checked(actions)
        record = self._new_record(actions.shape[1])
        moved: set[int] = set()
        for i in range(actions.shape[1]):
            worlds = self._running.alive()
            moved.update(worlds.tolist())
            if len(worlds):
                self._step(worlds, actions[:, i], record, i)
            record.states[:, i], record.localization[:, i] = self._state, self._localization
            if all_frames:
                self._draw(worlds.tolist())
                record.frames.append({name: _copy(frames) for name, frames in self._frames.items()})
        if not all_frames:
            self._draw(sorted(moved if ended_frames else moved.intersection(self._running.alive().tolist())))
        return self._result(record)

    def expert_action(self) -> Array:
        actions = self._zeros(self.world_spec.action.size)
        worlds = self._running.alive()
        for task, rows, view in self._views(worlds):
            actions[self.sim.on_device(worlds[rows])] = task.expert(view)
        return actions

    @property
    def phases(self) -> tuple[str, ...]:
        return phases.PHASES

    def motion_phases(self, state: NDArray[np.float32], localization: NDArray[np.float32]) -> NDArray[np.str_]:
        return phases.motion_phases(state[:, self._tcp], localization[:, :3])

    def close_extras(self, **kwargs: object) -> None:
        """Free the renderer."""
        del kwargs
        self.sim.close()

    def _checked(self, actions: Array) -> Array:
        """The actions on the worlds' device in the simulator's precision, clipped to [-1, 1]."""
        self.check_action_shape(actions)
        qpos = self.sim.field["qpos"]
        xp = array_namespace(qpos)
        actions = xp.astype(xp.astype(self.sim.on_device(actions), xp.float32), qpos.dtype)
        sound = xp.isfinite(actions)
        if not xp.all(sound):
            self.refuse_non_finite(to_numpy(actions), self._running.alive())
            actions = xp.where(sound, actions, 0.0)
        return actions.clip(-1.0, 1.0)

    def _step(self, worlds: NDArray[np.int64], action: Array, record: Record, i: int) -> None:
        """One control step of these worlds: execute, observe, end episodes. action: [N, A]."""
        at = self.sim.on_device(worlds)
        broken = self._move(at, action[at])
        self._running.steps[worlds] += 1
        success, wrong, lost = self._look(worlds)
        self._signal(worlds)
        self._reward(at[~broken], success[~broken], record, i)
        record.num_steps[worlds] += 1
        self._running.judge(worlds, *map(to_numpy, (broken, success, wrong, lost)))

    def _move(self, worlds: Array, action: Array) -> Array:
        """Execute one action per world; returns where physics failed, bool [n]; these keep their last valid state."""
        field, scene, arm = self.sim.field, self.scene, self.config.arm
        xp = array_namespace(action)
        start_pos = field["site_xpos"][worlds, scene.tcp_site]  # [n, 3]
        goal_mat = field["site_xmat"][worlds, scene.tcp_site].reshape(-1, 3, 3)
        goal_pos = start_pos + arm.position_scale_m * action[:, :3]
        goal_pos = goal_pos.clip(*(constant(c, goal_pos) for c in (arm.workspace_low_m, arm.workspace_high_m)))
        turn_per_tick = control.matrix_of(arm.rotation_scale_rad / control.TICKS * action[:, 3:6])
        fingers = (control.finger_target_m(arm, action[:, 6])[:, None],) * len(arm.fingers)
        broken = xp.zeros_like(action[:, 0], dtype=xp.bool)
        for tick in range(1, control.TICKS + 1):
            pos = field["site_xpos"][worlds, scene.tcp_site]
            mat = field["site_xmat"][worlds, scene.tcp_site].reshape(-1, 3, 3)
            goal_mat = turn_per_tick @ goal_mat
            pos_error = start_pos + tick / control.TICKS * (goal_pos - start_pos) - pos
            error = xp.concat((pos_error, control.rotation_vector(goal_mat, mat)), axis=1)
            joint_pos, axis, anchor = (field[name][worlds, scene.joints] for name in ("qpos", "xaxis", "xanchor"))
            targets = control.joint_targets(arm, joint_pos, control.arm_jacobian(axis, anchor, pos), error)
            field["ctrl"][worlds] = xp.concat((targets, *fingers), axis=1)
            broken[~broken] = self.sim.step(worlds[~broken], SUBSTEPS)
        return broken

    def _reward(self, worlds: Array, success: Array, record: Record, i: int) -> None:
        tcp, labels = self._state[worlds, self._tcp], self._localization[worlds]
        target, goal = labels[:, :3], labels[:, 3:6]
        values = {
            "success": array_namespace(tcp).astype(success, tcp.dtype),
            "reach": terms.near(tcp, target),
            "progress": terms.near(target, goal),
        }
        for term, weight in self._weights().items():
            record.reward_terms[term][worlds, i] = values[term]
            record.reward[worlds, i] += weight * values[term]

    def _weights(self) -> dict[str, float]:
        return {
            "success": self.config.success_weight,
            "reach": self.config.reach_weight,
            "progress": self.config.progress_weight,
        }

    def _views(self, worlds: NDArray[np.int64]) -> Iterator[tuple[Task, NDArray[np.int64], View]]:
        """Yields each task among these worlds, its indices into `worlds`, and its view."""
        if not len(worlds):
            return
        step = self.sim.on_device(self._running.steps[worlds])
        everything = read_view(self.sim.field, self.sampled, self.scene, self.sim.on_device(worlds), step)
        for task, rows in self._running.by_task(worlds):
            alone = len(rows) == len(worlds)
            yield task, rows, everything if alone else everything.part(self.sim.on_device(rows))

    def _first_look(self, worlds: NDArray[np.int64]) -> None:
        """Look at worlds whose episodes have just begun."""
        self._look(worlds)
        self._signal(worlds)

    def _look(self, worlds: NDArray[np.int64]) -> tuple[Array, Array, Array]:
        """Update the observed state and the labels.

        Returns:
            success, wrong and lost as defined by Task, bool [n] each.
        """
        at = self.sim.on_device(worlds)
        base_m = self.sampled.base_height_m[at]
        xp = array_namespace(base_m)
        self._state[at] = read_state(self.sim.field, self.scene, at, base_m)
        places = xp.empty((len(worlds), 2, 3), dtype=base_m.dtype, device=base_m.device)
        success, wrong, lost = (xp.zeros_like(base_m, dtype=xp.bool) for _ in range(3))
        for task, rows, view in self._views(worlds):
            row = self.sim.on_device(rows)
            places[row] = xp.stack(task.places(view), axis=1)
            success[row], wrong[row], lost[row] = task.success(view), task.wrong(view), task.lost(view)
        self._localization[at] = read_labels(self.sim.field, self.scene, self.config.cameras, at, places, base_m)
        return success, wrong, lost

    def _signal(self, worlds: NDArray[np.int64]) -> None:
        """Set the buttons' colours for tasks with signals."""
        if not self._has_signals:
            return
        colours, buttons = self.sim.model_field["geom_rgba"], self.sim.on_device(np.array(self.scene.button_geoms))
        for task, rows, view in self._views(worlds):
            if task.has_signals:
                rgb = task.button_rgb(view)
                colours[self.sim.on_device(worlds[rows])[:, None], buttons, :3] = array_namespace(rgb).astype(
                    rgb, colours.dtype
                )

    def _draw(self, worlds: Sequence[int]) -> None:
        at = self.sim.on_device(np.array(worlds, np.int64))
        for name, frames in self.sim.render(worlds).items():
            self._frames[name][at] = frames

    def _zeros(self, *shape: int, dtype: type[np.generic] = np.float32) -> Array:
        return self.sim.on_device(np.zeros((self.num_envs, *shape), dtype))

    def _observation(self) -> Observation:
        return {
            "frames": {name: _copy(frames) for name, frames in self._frames.items()},
            "state": _copy(self._state),
            "instruction": tuple(episode.instruction if episode else "" for episode in self._running.episodes),
        }

    def _new_record(self, num_actions: int) -> Record:
        return Record(
            reward_terms={name: self._zeros(num_actions) for name in self._weights()},
            reward=self._zeros(num_actions),
            states=self._zeros(num_actions, self.world_spec.state.size),
            localization=self._zeros(num_actions, LOCALIZATION.size),
            num_steps=np.zeros(self.num_envs, np.int64),
        )

    def _result(self, record: Record) -> ChunkResult:
        running = self._running
        return ChunkResult(
            observation=self._observation(),
            reward_terms=record.reward_terms,
            reward=record.reward,
            states=record.states,
            localization=record.localization,
            num_steps=record.num_steps,
            terminated=running.terminated.copy(),
            truncated=running.truncated.copy(),
            success=running.success.copy(),
            failure=tuple(running.failure),
            all_frames=(
                {
                    name: array_namespace(now).stack([frames[name] for frames in record.frames], axis=1)
                    for name, now in self._frames.items()
                }
                if record.frames
                else None
            ),
        )


def _copy(array: Array) -> Array:
    return array_namespace(array).asarray(array, copy=True)
