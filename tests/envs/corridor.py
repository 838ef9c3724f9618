"""A user's own gymnasium environment: a corridor that can be walked by hand, for this interpreter and for another."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from envs.types import EpisodeSpec
from llamarm import GymnasiumTask, GymnasiumWorld

FELL = 5.0


class Corridor(gymnasium.Env[Any, Any]):
    """Walk to the door at +3 or -3, which the seed decides. An action between -0.5 and 1.5 is a step."""

    def __init__(self, *, reset_moves_back: bool = True) -> None:
        self.observation_space = gymnasium.spaces.Box(-FELL, FELL, (1,), np.float32)
        self.action_space = gymnasium.spaces.Box(np.float32(-0.5), np.float32(1.5), (1,), np.float32)
        self.x = 0.0
        self.closed = False
        self._reset_moves_back = reset_moves_back

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.door = float(self.np_random.choice([-3.0, 3.0]))
        self.x = 0.0 if self._reset_moves_back else self.x
        return self.seen(), {}

    def step(self, action: NDArray[np.float32]) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        self.x += float(action[0])
        return self.seen(), -abs(self.door - self.x), abs(self.x) >= FELL, False, {"is_success": self.x == self.door}

    def seen(self) -> dict[str, Any]:
        return {"agent_pos": np.array([self.x]), "door": self.door}

    def render(self) -> Any:
        frame = np.zeros((4, 11, 3), np.uint8)
        frame[:, round(self.door) + 5, 0] = frame[:, int(np.clip(round(self.x), -5, 5)) + 5, 1] = 255
        return frame

    def close(self) -> None:
        self.closed = True


class Walk(GymnasiumTask):
    max_steps = 8

    def make_env(self) -> Any:
        return Corridor()

    def instruction(self, env: Any) -> str:
        return f"go to {env.unwrapped.door:+.0f}"

    def labels(self, env: Any) -> dict[str, float]:
        return {"door_x": env.unwrapped.door}

    def expert_action(self, env: Any, observation: Any) -> Any:
        return [np.clip(observation["door"] - observation["agent_pos"][0], -0.5, 1.5)]


def corridors(num_worlds: int, **tasks: GymnasiumTask) -> GymnasiumWorld:
    return GymnasiumWorld(num_worlds, suite="corridor", tasks=tasks or {"walk": Walk()}, control_dt_s=0.1)


def walk(seed: int, task: str = "walk", variation: str = "train") -> EpisodeSpec:
    return EpisodeSpec(suite="corridor", task=task, seed=seed, variation=variation)


def seed_of(door: float) -> int:
    """Some seed whose door is there."""
    return next(s for s in range(99) if np.random.default_rng(s).choice([-3.0, 3.0]) == door)
