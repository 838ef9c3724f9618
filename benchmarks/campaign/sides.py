"""A world whose outcomes can be computed by hand: walk three steps to the side that the instruction names.

Task "left" ends in success at x = -3 and in the failure "wrong side" at x = +3, task "right" the other way round; the
step limit is 8. Frames are as bright as the seed is large, and never black. The expert stands still in episodes whose
seed is a multiple of 5.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from envs.types import CameraSpec, ChunkResult, EpisodeSpec, Info, Observation, VectorSpec, WorldSpec
from envs.world import World

STEP_LIMIT = 8
DISTANCE = 3
_X = VectorSpec(names=("x",), units=("step",), low=(-8.0,), high=(8.0,))
SPEC = WorldSpec(
    cameras=(CameraSpec(name="front", height=16, width=16), CameraSpec(name="wrist", height=16, width=16)),
    state=_X,
    action=VectorSpec(names=("dx",), units=("step",), low=(-1.0,), high=(1.0,)),
    localization=_X,
    control_dt_s=0.1,
)
_SIDE = {"left": -1, "right": 1, "either": 0}


class SidesWorld(World):
    """N such walks."""

    def __init__(self, num_worlds: int) -> None:
        super().__init__(num_worlds=num_worlds, world_spec=SPEC, suite="sides", tasks=tuple(_SIDE))
        self.x = np.zeros(num_worlds, np.float32)
        self.t = np.zeros(num_worlds, np.int64)
        self.specs: list[EpisodeSpec | None] = [None] * num_worlds

    def reset_to(self, specs: Sequence[EpisodeSpec], worlds: Sequence[int]) -> tuple[Observation, Info]:
        for n, spec in zip(worlds, specs, strict=True):
            self.x[n], self.t[n], self.specs[n] = 0, 0, spec
        return self._observe(), {"localization": self.x[:, None].copy()}

    def step_chunk(
        self, actions: NDArray[np.float32], *, all_frames: bool = False, ended_frames: bool = True
    ) -> ChunkResult:
        k = actions.shape[1]
        start = self.t.copy()
        trace = np.zeros((self.num_envs, k, 1), np.float32)
        for i in range(k):
            running = ~self._done()
            self.x += np.where(running, np.clip(actions[:, i, 0], -1, 1), 0)
            self.t += running
            trace[:, i, 0] = self.x
        frames = {c.name: np.repeat(self._frame()[:, None], k, 1) for c in SPEC.cameras} if all_frames else None
        success = self._success()
        reward = np.zeros((self.num_envs, k), np.float32)
        reward[np.arange(self.num_envs), np.maximum(self.t - start - 1, 0)] = success
        wrong = (np.abs(self.x) >= DISTANCE) & ~success
        return ChunkResult(
            observation=self._observe(),
            reward_terms={"arrive": reward},
            reward=reward,
            states=trace,
            localization=trace,
            num_steps=self.t - start,
            terminated=np.abs(self.x) >= DISTANCE,
            truncated=(self.t >= STEP_LIMIT) & (np.abs(self.x) < DISTANCE),
            success=success,
            failure=tuple("wrong side" if w else None for w in wrong),
            all_frames=frames,
        )

    def expert_action(self) -> NDArray[np.float32]:
        moves = [_SIDE[s.task] if s is not None and s.seed % 5 else 0 for s in self.specs]
        return np.array(moves, np.float32)[:, None]

    def example_spec(self, seed: int) -> EpisodeSpec:
        return EpisodeSpec(suite="sides", task="left", seed=seed)

    def _success(self) -> NDArray[np.bool_]:
        side = np.array([_SIDE[s.task] if s is not None else 0 for s in self.specs])
        return (np.abs(self.x) >= DISTANCE) & ((side == 0) | (np.sign(self.x) == side))

    def _done(self) -> NDArray[np.bool_]:
        return (np.abs(self.x) >= DISTANCE) | (self.t >= STEP_LIMIT)

    def _frame(self) -> NDArray[np.uint8]:
        level = np.array([s.seed % 200 + 50 if s is not None else 0 for s in self.specs], np.uint8)
        return np.broadcast_to(level[:, None, None, None], (self.num_envs, 16, 16, 3)).copy()

    def _observe(self) -> Observation:
        instructions = tuple(f"go {s.task}, number {s.seed}" if s is not None else "" for s in self.specs)
        return Observation(
            frames={c.name: self._frame() for c in SPEC.cameras}, state=self.x[:, None].copy(), instruction=instructions
        )


def make_world(num_worlds: int) -> SidesWorld:
    """For the command line: `--world benchmarks.campaign.sides:make_world`."""
    return SidesWorld(num_worlds)
