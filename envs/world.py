"""World: N parallel episodes behind gymnasium's VectorEnv, plus `step_chunk`.

Worlds on Warp return torch tensors on their device where gymnasium expects numpy (frames, state, rewards, labels).
Terminated, truncated and failure are always numpy, because the rollout loop needs them on the host.

Autoreset is disabled: a finished episode stays in its last state and ignores actions until `reset` is called with its
index in the mask.

Shape letters: N worlds, T steps of an episode, k actions executed of a chunk, A action dims, S state dims,
L localization dims.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from envs.arm import ArmSpec
from envs.errors import UserError
from envs.instructions import InstructionSpace
from envs.types import Array, ChunkResult, EpisodeSpec, Info, Observation, WorldSpec


class World(VectorEnv[Observation, Array, Array]):
    """N worlds of one suite.

    Subclasses implement `reset_to`, `step_chunk`, `expert_action` and `close_extras`; this class translates gymnasium's
    calls to them.
    """

    arm: ArmSpec | None = None
    """The world's arm, if known: its limits apply when a robot of this world is controlled."""
    one_expert: bool = False
    """Whether one expert acts in every task, so that one task shows whether there is an expert."""
    absent_variations: Mapping[str, str] = MappingProxyType({})
    """{variation: why}: those that the suite has, and these worlds cannot run."""

    def __init__(self, *, num_worlds: int, world_spec: WorldSpec, suite: str, tasks: tuple[str, ...]) -> None:
        if num_worlds < 1:
            raise UserError(f"num_worlds must be at least 1, got {num_worlds}")
        if not tasks:
            raise UserError(f"suite {suite!r} has no task")
        self.num_envs = num_worlds
        self.world_spec = world_spec
        self.suite = suite
        self.tasks = tasks
        self.task_groups: dict[str, tuple[str, ...]] = {}
        """{name: tasks}: the suite's splits in published tables, which cover every task; empty if it has none."""
        self.notes: dict[str, str] = {}
        """{name: what}: why results are not comparable with the suite's others; written into every evaluation."""
        self.metadata = {"autoreset_mode": AutoresetMode.DISABLED, "render_modes": []}
        self.single_observation_space = observation_space(world_spec)
        self.observation_space = batch_space(self.single_observation_space, num_worlds)
        self.single_action_space = action_space(world_spec)
        self.action_space = batch_space(self.single_action_space, num_worlds)

    @abstractmethod
    def reset_to(self, specs: Sequence[EpisodeSpec], worlds: Sequence[int]) -> tuple[Observation, Info]:
        """Begin the episode specs[j] in world worlds[j]; the other worlds are unchanged.

        Returns:
            The observation of all N worlds, and info with "localization" float32 [N, L] and, if worlds failed to begin
            their episode, "broken" {world: reason}; those worlds run no episode.

        Raises:
            UserError: see `check_reset`.
        """

    @abstractmethod
    def step_chunk(self, actions: Array, *, all_frames: bool = False, ended_frames: bool = True) -> ChunkResult:
        """Execute k actions in every world that runs an episode, and render once, at the end.

        Args:
            actions: numpy or torch, [N, k, A] in [-1, 1]; values outside are clipped.
            all_frames: render after every action, for recorders and videos.
            ended_frames: also render worlds whose episode ends within the chunk; else their frames may be stale.

        Raises:
            UserError: wrong shape, or a non-finite action in a running world (the message names it; no world steps).
        """

    @abstractmethod
    def expert_action(self) -> Array:
        """The scripted expert's action for the current state of every world, [N, A]; zeros where no episode runs.

        Raises:
            NotImplementedError: this suite has no expert.
        """

    def example_spec(self, seed: int) -> EpisodeSpec:
        """An episode for gymnasium's `reset(seed=...)`: the task is the seed modulo the number of tasks."""
        return EpisodeSpec(suite=self.suite, task=self.tasks[seed % len(self.tasks)], seed=seed)

    def in_order(self, specs: Sequence[EpisodeSpec]) -> list[EpisodeSpec]:
        """The order in which worlds of this suite run those episodes fastest: as given, unless it is slow to change the
        task.
        """
        return list(specs)

    def variations_of(self, task: str) -> tuple[str, ...] | None:
        """Variations that a task's episodes may have; None if unknown."""
        del task
        return None

    def check_spec(self, spec: object) -> None:
        """
        Raises:
            UserError: not an EpisodeSpec, or one of another suite or with an unknown task or variation; the message
                lists what exists.
        """
        if not isinstance(spec, EpisodeSpec):
            raise UserError(f"an episode is begun by an EpisodeSpec(suite=..., task=..., seed=...), got {spec!r}")
        if spec.suite != self.suite:
            raise UserError(f"spec {spec.id!r} is of suite {spec.suite!r}; this world is {self.suite!r}")
        if spec.task not in self.tasks:
            raise UserError(f"task {spec.task!r} does not exist in {self.suite}; tasks: {', '.join(self.tasks)}")
        variations = self.variations_of(spec.task)
        if variations is not None and spec.variation not in variations:
            why = self.absent_variations.get(spec.variation, "does not exist")
            raise UserError(f"variation {spec.variation!r} {why}; variations: {', '.join(variations)}")

    def check_reset(self, specs: Sequence[EpisodeSpec], worlds: Sequence[int]) -> None:
        """Check the arguments of `reset_to`.

        Raises:
            UserError: not one world per spec, a world that does not exist, a repeated one, or see `check_spec`.
        """
        wrong = [n for n in worlds if not 0 <= n < self.num_envs]
        if len(specs) != len(worlds) or wrong or len(set(worlds)) != len(worlds):
            raise UserError(
                f"{len(specs)} specs begin in as many different worlds of 0..{self.num_envs - 1}, got {list(worlds)}"
            )
        for spec in specs:
            self.check_spec(spec)

    def check_action_shape(self, actions: Array) -> None:
        """
        Raises:
            UserError: not an array of numbers, or not [N, k, A] with k at least 1.
        """
        expected = (self.num_envs, self.world_spec.action.size)
        if getattr(actions, "ndim", None) is None or getattr(actions.dtype, "kind", "f") not in "fiu":
            kind = getattr(actions, "dtype", type(actions).__name__)
            raise UserError(f"actions must be numbers in a numpy array or a torch tensor, got {kind}")
        if actions.ndim != 3 or (actions.shape[0], actions.shape[2]) != expected or actions.shape[1] < 1:
            raise UserError(f"actions must be [{expected[0]}, k >= 1, {expected[1]}], got {list(actions.shape)}")

    def refuse_non_finite(self, actions: NDArray[np.floating], worlds: NDArray[np.int64]) -> None:
        """
        Raises:
            UserError: an action [N, k, A] of one of those worlds is not finite; the message names the first.
        """
        bad = np.argwhere(~np.isfinite(actions[worlds]))
        if len(bad):
            row, step, dim = bad[0]
            name, value = self.world_spec.action.names[dim], actions[worlds[row], step, dim]
            raise UserError(f"action {name!r} of world {worlds[row]}, step {step} of the chunk, is {value}")

    @property
    def phases(self) -> tuple[str, ...]:
        """Names that `motion_phases` returns, in temporal order."""
        return ("first third", "second third", "last third")

    def motion_phases(self, state: NDArray[np.float32], localization: NDArray[np.float32]) -> NDArray[np.str_]:
        """The phase of the motion at every step of a finished episode, [T]; by default thirds of its duration.

        Args:
            state: proprioception before each action, [T, S].
            localization: privileged labels, [T, L].
        """
        del localization
        thirds = np.arange(len(state)) * len(self.phases) // len(state)
        return np.array(self.phases)[thirds]

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, Info]:
        """gymnasium's reset.

        options: {"specs": [EpisodeSpec, ...]} begins those episodes; {"reset_mask": bool [N]} resets only the masked
        worlds (with one spec per masked world). Without specs, episodes are sampled from the seed, with
        {"variation": NAME} if given.

        Raises:
            UserError: an unknown option, specs together with a variation, or a spec, mask or seeds that do not fit
                these worlds.
        """
        asked = check_options(options, ("specs", "variation", "reset_mask"))
        mask = np.asarray(asked.get("reset_mask", np.ones(self.num_envs, bool)))
        if mask.shape != (self.num_envs,) or mask.dtype != np.bool_:
            raise UserError(f"reset_mask must be bool ({self.num_envs},), got {mask.dtype} {mask.shape}")
        worlds = np.flatnonzero(mask).tolist()
        specs = asked.get("specs")
        if specs is None:
            super().reset(seed=seed if not isinstance(seed, list) else None)
            specs = [self.example_spec(s) for s in self._seeds(seed, worlds)]
            if (variation := asked.get("variation")) is not None:
                specs = [replace(spec, variation=variation) for spec in specs]
        elif "variation" in asked:
            raise UserError("options has specs, each with its variation, and another variation; give one of the two")
        return self.reset_to(specs, worlds)

    def step(self, actions: Array) -> tuple[Observation, Array, NDArray[np.bool_], NDArray[np.bool_], Info]:
        """gymnasium's step: a chunk of one action."""
        result = self.step_chunk(actions[:, None])
        info: Info = {
            "is_success": result.success,
            "failure": np.array([f or "" for f in result.failure], dtype=object),
            "localization": result.localization[:, -1],
            "reward_terms": {name: term[:, 0] for name, term in result.reward_terms.items()},
        }
        return result.observation, result.reward[:, 0], result.terminated, result.truncated, info

    def _seeds(self, seed: int | list[int | None] | None, worlds: list[int]) -> list[int]:
        if isinstance(seed, list):
            if len(seed) != self.num_envs:
                raise UserError(f"{len(seed)} seeds were given for {self.num_envs} worlds")
            chosen = [seed[n] for n in worlds]
            return [int(s) if s is not None else int(self.np_random.integers(2**31)) for s in chosen]
        if seed is not None:
            return [seed + i for i in worlds]
        return self.np_random.integers(2**31, size=len(worlds)).tolist()


def check_options(options: Mapping[str, Any] | None, known: Sequence[str]) -> Mapping[str, Any]:
    """The options of a reset, after checking that each is known.

    Raises:
        UserError: one is not; the message lists those that are.
    """
    options = options or {}
    if unknown := [key for key in options if key not in known]:
        raise UserError(f"reset has no option {', '.join(map(repr, unknown))}; options: {', '.join(map(repr, known))}")
    return options


def observation_space(spec: WorldSpec) -> gymnasium.spaces.Dict:
    """The gymnasium space of one world's Observation."""
    frames: dict[str, gymnasium.Space[Any]] = {
        c.name: gymnasium.spaces.Box(0, 255, (c.height, c.width, 3), np.uint8) for c in spec.cameras
    }
    state = gymnasium.spaces.Box(
        np.array(spec.state.low, np.float32), np.array(spec.state.high, np.float32), dtype=np.float32
    )
    return gymnasium.spaces.Dict(
        {"frames": gymnasium.spaces.Dict(frames), "state": state, "instruction": InstructionSpace()}
    )


def action_space(spec: WorldSpec) -> gymnasium.spaces.Box:
    """The gymnasium space of one world's action: every dimension in [-1, 1]."""
    return gymnasium.spaces.Box(-1.0, 1.0, (spec.action.size,), np.float32)
