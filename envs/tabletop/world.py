"""TabletopWorld: N tables, each running any task of the suite.

Shape letters: N worlds, n of them in a group, k actions executed of a chunk, A action dims, S state dims,
L localization dims, O objects.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from envs.sim_cpu import CpuSim
from envs.tabletop import control, terms
from envs.tabletop.arm import FINGER_OPEN_M, LINKS, NUM_JOINTS
from envs.tabletop.labels import LOCALIZATION, read_labels
from envs.tabletop.layout import Episode, draw_episode
from envs.tabletop.placing import PER_EPISODE_MODEL_FIELDS, place
from envs.tabletop.reading import read_state, read_view
from envs.tabletop.scene import CAMERAS, PHYSICS_DT_S, build_scene
from envs.tabletop.task import Task, View
from envs.tabletop.tasks import TASKS
from envs.tabletop.variations import VARIATIONS
from envs.types import CameraSpec, ChunkResult, EpisodeSpec, Info, Observation, VectorSpec, WorldSpec
from envs.world import World

SUBSTEPS = round(control.CONTROL_DT_S / PHYSICS_DT_S / control.TICKS)
"""Physics steps per tick of the controller."""

STATE = VectorSpec(
    names=(
        *(f"joint{i}_pos" for i in range(1, NUM_JOINTS + 1)),
        *(f"tcp_{axis}" for axis in "xyz"),
        *(f"tcp_rot_{i}" for i in range(6)),
        "gripper_opening",
    ),
    units=(*("rad",) * NUM_JOINTS, *("m",) * 3, *("1",) * 6, "m"),
    low=(*(link.joint_range_rad[0] - 0.1 for link in LINKS), *(-1.2,) * 3, *(-1.01,) * 6, -0.01),
    high=(*(link.joint_range_rad[1] + 0.1 for link in LINKS), *(1.2,) * 3, *(1.01,) * 6, 2 * FINGER_OPEN_M + 0.01),
)
"""tcp in the arm's base frame; tcp_rot: first two columns of its rotation matrix (Zhou et al. 2019)."""

TCP = slice(NUM_JOINTS, NUM_JOINTS + 3)
"""Where the tcp's position is in the state."""


@dataclass(frozen=True, kw_only=True)
class TabletopConfig:
    """How the suite is simulated and rewarded."""

    cameras: tuple[CameraSpec, ...] = CAMERAS
    success_weight: float = 1.0
    """Of the term "success": 1 in the step in which the task is done."""
    reach_weight: float = 0.0
    """Of the term "reach": near(fingertips, target) in every step."""
    progress_weight: float = 0.0
    """Of the term "progress": near(target, goal) in every step."""
    num_threads: int = 1
    """For physics; rendering has one."""


@dataclass(kw_only=True)
class _Running:
    """What changes within an episode besides the simulation's state."""

    episode: Episode | None = None
    steps: int = 0
    terminated: bool = False
    truncated: bool = False
    success: bool = False
    failure: str | None = None

    @property
    def alive(self) -> bool:
        return self.episode is not None and not (self.terminated or self.truncated)


@dataclass(kw_only=True)
class _Record:
    """Rows of a chunk as they are filled."""

    reward_terms: dict[str, NDArray[np.float32]]  # [N, k]
    reward: NDArray[np.float32]  # [N, k]
    states: NDArray[np.float32]  # [N, k, S]
    localization: NDArray[np.float32]  # [N, k, L]
    num_steps: NDArray[np.int64]  # [N]
    frames: list[dict[str, NDArray[np.uint8]]] = field(default_factory=list)


class TabletopWorld(World):
    """The tabletop suite on CPUs."""

    def __init__(self, num_worlds: int, config: TabletopConfig | None = None) -> None:
        self.config = config or TabletopConfig()
        spec = WorldSpec(
            cameras=self.config.cameras,
            state=STATE,
            action=control.ACTION,
            localization=LOCALIZATION,
            control_dt_s=control.CONTROL_DT_S,
        )
        super().__init__(num_worlds=num_worlds, world_spec=spec, suite="tabletop", tasks=tuple(TASKS))
        self.scene = build_scene()
        self.sim = CpuSim(
            self.scene.model,
            num_sims=num_worlds,
            cameras=self.config.cameras,
            fields=(
                "qpos",
                "qvel",
                "ctrl",
                "xaxis",
                "xanchor",
                "site_xpos",
                "site_xmat",
                "geom_xpos",
                "cam_xpos",
                "cam_xmat",
            ),
            per_sim_model_fields=PER_EPISODE_MODEL_FIELDS,
            num_threads=self.config.num_threads,
        )
        self._running = [_Running() for _ in range(num_worlds)]
        self._base_height_m = np.zeros(num_worlds)
        self._frames = {c.name: np.zeros((num_worlds, c.height, c.width, 3), np.uint8) for c in self.config.cameras}
        self._state = np.zeros((num_worlds, STATE.size), np.float32)
        self._localization = np.zeros((num_worlds, LOCALIZATION.size), np.float32)

    def episode(self, world: int) -> Episode:
        """What was drawn for the episode that runs (or ran last) in that world.

        Raises:
            ValueError: no episode has begun there.
        """
        episode = self._running[world].episode
        if episode is None:
            raise ValueError(f"world {world} has not begun an episode; call reset first")
        return episode

    def task_of(self, spec: EpisodeSpec) -> Task:
        """The task of a spec.

        Raises:
            ValueError: another suite, or an unknown task or variation; the message lists what exists.
        """
        if spec.suite != self.suite:
            raise ValueError(f"spec {spec.id!r} is of suite {spec.suite!r}; this world is {self.suite!r}")
        if spec.task not in TASKS:
            raise ValueError(f"task {spec.task!r} does not exist in {self.suite}; tasks: {', '.join(TASKS)}")
        if spec.variation not in VARIATIONS:
            raise ValueError(f"variation {spec.variation!r} does not exist; variations: {', '.join(VARIATIONS)}")
        return TASKS[spec.task]

    def example_spec(self, seed: int) -> EpisodeSpec:
        """Tasks take turns with the seed."""
        return EpisodeSpec(suite=self.suite, task=self.tasks[seed % len(self.tasks)], seed=seed)

    def reset_to(self, specs: Sequence[EpisodeSpec], worlds: Sequence[int]) -> tuple[Observation, Info]:
        """See World.reset_to.

        Raises:
            ValueError: a spec of another suite, or with an unknown task or variation.
        """
        episodes = [draw_episode(spec, self.task_of(spec)) for spec in specs]
        if episodes:
            self.sim.clear(list(worlds))
            for world, episode in zip(worlds, episodes, strict=True):
                self._running[world] = _Running(episode=episode)
                self._base_height_m[world] = episode.pose.base_height_m
                place(self.sim, self.scene, world, episode)
            self.sim.refresh(list(worlds))
            self._look(np.array(sorted(worlds)))
            self._draw(sorted(worlds))
        return self._observation(), {"localization": self._localization.copy()}

    def step_chunk(self, actions: NDArray[np.float32], *, all_frames: bool = False) -> ChunkResult:
        """See World.step_chunk."""
        actions = self._checked(actions)
        record = self._new_record(actions.shape[1])
        moved: set[int] = set()
        for i in range(actions.shape[1]):
            worlds = self._alive()
            moved.update(worlds.tolist())
            if len(worlds):
                self._step(worlds, actions[:, i].astype(np.float64), record, i)
            record.states[:, i], record.localization[:, i] = self._state, self._localization
            if all_frames:
                self._draw(worlds.tolist())
                record.frames.append({name: frames.copy() for name, frames in self._frames.items()})
        if not all_frames:
            self._draw(sorted(moved))
        return self._result(record)

    def expert_action(self) -> NDArray[np.float32]:
        """See World.expert_action."""
        actions = np.zeros((self.num_envs, control.ACTION.size), np.float32)
        worlds = self._alive()
        for task, rows, view in self._views(worlds):
            actions[worlds[rows]] = task.expert(view)
        return actions

    def close_extras(self, **kwargs: object) -> None:
        """Free the renderer."""
        del kwargs
        self.sim.close()

    def _checked(self, actions: NDArray[np.float32]) -> NDArray[np.float32]:
        actions = np.asarray(actions, np.float32)
        expected = (self.num_envs, self.world_spec.action.size)
        if actions.ndim != 3 or (actions.shape[0], actions.shape[2]) != expected or actions.shape[1] < 1:
            raise ValueError(f"actions must be [{expected[0]}, k >= 1, {expected[1]}], got {list(actions.shape)}")
        alive = self._alive()
        bad = np.argwhere(~np.isfinite(actions[alive]))
        if len(bad):
            row, step, dim = bad[0]
            name = self.world_spec.action.names[dim]
            raise ValueError(
                f"action {name!r} of world {alive[row]}, step {step} of the chunk, is {actions[alive][row, step, dim]}"
            )
        return np.clip(np.nan_to_num(actions), -1.0, 1.0)

    def _alive(self) -> NDArray[np.int64]:
        return np.array([i for i, r in enumerate(self._running) if r.alive], np.int64)

    def _step(self, worlds: NDArray[np.int64], action: NDArray[np.float64], record: _Record, i: int) -> None:
        """One control step of these worlds: move, look, judge."""
        broken = self._move(worlds, action[worlds])
        success, wrong = self._look(worlds)
        self._reward(worlds[~broken], success[~broken], record, i)
        record.num_steps[worlds] += 1
        for row, world in enumerate(worlds.tolist()):
            running = self._running[world]
            running.steps += 1
            task = TASKS[self.episode(world).spec.task]
            if broken[row]:
                running.terminated, running.failure = True, "non-finite physics"
            elif success[row]:
                running.terminated, running.success = True, True
            elif wrong[row]:
                running.terminated, running.failure = True, task.wrong_name
            else:
                running.truncated = running.steps >= task.max_steps

    def _move(self, worlds: NDArray[np.int64], action: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Execute one action per world; returns whose physics broke, [n]: they stay where they last were sound."""
        field, scene = self.sim.field, self.scene
        start_pos = field["site_xpos"][worlds, scene.tcp_site]  # [n, 3]
        goal_mat = field["site_xmat"][worlds, scene.tcp_site].reshape(-1, 3, 3)
        goal_pos = start_pos + control.POSITION_SCALE_M * action[:, :3]
        goal_pos = np.clip(goal_pos, control.WORKSPACE_LOW_M, control.WORKSPACE_HIGH_M)
        turn_per_tick = control.matrix_of(control.ROTATION_SCALE_RAD / control.TICKS * action[:, 3:6])
        fingers = control.finger_target_m(action[:, 6])[:, None]
        broken = np.zeros(len(worlds), bool)
        for tick in range(1, control.TICKS + 1):
            pos = field["site_xpos"][worlds, scene.tcp_site]
            mat = field["site_xmat"][worlds, scene.tcp_site].reshape(-1, 3, 3)
            goal_mat = turn_per_tick @ goal_mat
            pos_error = start_pos + tick / control.TICKS * (goal_pos - start_pos) - pos
            error = np.concatenate((pos_error, control.rotation_vector(goal_mat, mat)), axis=1)
            joint_pos, axis, anchor = (field[name][worlds, :NUM_JOINTS] for name in ("qpos", "xaxis", "xanchor"))
            targets = control.joint_targets(joint_pos, control.arm_jacobian(axis, anchor, pos), error)
            field["ctrl"][worlds] = np.concatenate((targets, fingers, fingers), axis=1)
            broken[~broken] = self.sim.step(worlds[~broken], SUBSTEPS)
        return broken

    def _reward(self, worlds: NDArray[np.int64], success: NDArray[np.bool_], record: _Record, i: int) -> None:
        tcp, target, goal = self._state[worlds, TCP], *np.split(self._localization[worlds, :6], 2, axis=1)
        values = {
            "success": success.astype(np.float32),
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
        """Every task that some of these worlds run, its rows in `worlds`, and its view."""
        if not len(worlds):
            return
        episodes = tuple(self.episode(world) for world in worlds.tolist())
        everything = read_view(self.sim.field, self.scene, worlds, episodes)
        rows_of: dict[str, list[int]] = {}
        for row, episode in enumerate(episodes):
            rows_of.setdefault(episode.spec.task, []).append(row)
        for name, rows in rows_of.items():
            yield TASKS[name], np.array(rows), everything.part(np.array(rows))

    def _look(self, worlds: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Bring the observed state and the labels up to date; returns who succeeded and who failed for good, [n]."""
        base_m = self._base_height_m[worlds]
        self._state[worlds] = read_state(self.sim.field, self.scene, worlds, base_m)
        places = np.empty((len(worlds), 2, 3))
        success, wrong = np.zeros((2, len(worlds)), bool)
        for task, rows, view in self._views(worlds):
            places[rows] = np.stack(task.places(view), axis=1)
            success[rows], wrong[rows] = task.success(view), task.wrong(view)
        self._localization[worlds] = read_labels(self.sim.field, self.scene, worlds, places, base_m)
        return success, wrong

    def _draw(self, worlds: Sequence[int]) -> None:
        for name, frames in self.sim.render(worlds).items():
            self._frames[name][list(worlds)] = frames

    def _observation(self) -> Observation:
        return {
            "frames": {name: frames.copy() for name, frames in self._frames.items()},
            "state": self._state.copy(),
            "instruction": tuple(r.episode.instruction if r.episode else "" for r in self._running),
        }

    def _new_record(self, num_actions: int) -> _Record:
        shape = (self.num_envs, num_actions)
        return _Record(
            reward_terms={name: np.zeros(shape, np.float32) for name in self._weights()},
            reward=np.zeros(shape, np.float32),
            states=np.zeros((*shape, STATE.size), np.float32),
            localization=np.zeros((*shape, LOCALIZATION.size), np.float32),
            num_steps=np.zeros(self.num_envs, np.int64),
        )

    def _result(self, record: _Record) -> ChunkResult:
        running = self._running
        return ChunkResult(
            observation=self._observation(),
            reward_terms=record.reward_terms,
            reward=record.reward,
            states=record.states,
            localization=record.localization,
            num_steps=record.num_steps,
            terminated=np.array([r.terminated for r in running]),
            truncated=np.array([r.truncated for r in running]),
            success=np.array([r.success for r in running]),
            failure=tuple(r.failure for r in running),
            all_frames=(
                {name: np.stack([f[name] for f in record.frames], axis=1) for name in self._frames}
                if record.frames
                else None
            ),
        )
