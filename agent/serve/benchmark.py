"""Benchmark: our worlds in vla-eval (vla_eval 0.8.0), by import string, without Docker.

    benchmarks:
      - benchmark: "agent.serve.benchmark:Benchmark"
        episodes_per_task: 10
        params: {world: metaworld-mt50, tasks: [door-open, push]}

vla-eval must run in an interpreter that has llamarm's packages too; it is no dependency of ours. Episode i of a task
has the seed of evaluation's i-th episode, so results are paired with those of `llamarm eval`.
"""

from __future__ import annotations

from typing import Any, ClassVar

from vla_eval.benchmarks.base import StepBenchmark, StepResult
from vla_eval.specs import IMAGE_RGB, LANGUAGE, DimSpec

from agent.runs.seeds import FIRST_EVALUATION_SEED
from agent.serve.vla_eval import action_spec
from envs.errors import UserError
from envs.make import make_world
from envs.types import EpisodeSpec


class Benchmark(StepBenchmark):
    """Held-out episodes of a world of ours.

    An observation has `images` by camera, `state`, `task_description`; an action is the world's, in [-1, 1].
    """

    render_backends: ClassVar[frozenset[str]] = frozenset({"cpu", "gpu"})

    def __init__(
        self,
        world: str = "tabletop",
        tasks: list[str] | None = None,
        variation: str = "train",
        send_state: bool = True,
    ) -> None:
        """
        Args:
            world: name for `make_world`.
            tasks: None for all.
            variation: of the episodes.
            send_state: whether observations have `state`.

        Raises:
            UserError: no such world, task or variation.
        """
        super().__init__()
        self.world = make_world(world)
        self.tasks = list(tasks or self.world.tasks)
        self.variation = variation
        self._sends_state = send_state
        for task in self.tasks:
            if task not in self.world.tasks:
                raise UserError(f"task {task!r} does not exist; tasks: {', '.join(self.world.tasks)}")

    @classmethod
    def configure_render(cls, mode: str) -> dict[str, str]:
        """Do nothing: envs/simulation/gl.py selects the OpenGL backend."""
        del mode
        return {}

    def get_tasks(self) -> list[dict[str, Any]]:
        """The tasks, by name."""
        return [{"name": task, "suite": self.world.suite} for task in self.tasks]

    def reset(self, task: dict[str, Any]) -> Any:
        """The first observation of the task's episode.

        Raises:
            UserError: no such variation.
            RuntimeError: the world failed.
        """
        seed = FIRST_EVALUATION_SEED + task["episode_idx"]
        spec = EpisodeSpec(suite=self.world.suite, task=task["name"], seed=seed, variation=self.variation)
        observation, info = self.world.reset_to([spec], [0])
        if broken := info.get("broken"):
            raise RuntimeError(f"{spec.id}: the world failed: {broken[0]}")
        return observation

    def step(self, action: dict[str, Any]) -> StepResult:
        """Execute one action."""
        result = self.world.step_chunk(action["actions"][None, None])
        if 0 in result.broken:
            raise RuntimeError(f"the world failed: {result.failure[0]}")
        info = {"success": bool(result.success[0]), "failure": result.failure[0]}
        return StepResult(result.observation, float(result.reward[0, 0]), bool(result.done[0]), info)

    def make_obs(self, raw_obs: Any, task: dict[str, Any]) -> dict[str, Any]:
        """The observation in vla-eval's format."""
        del task
        state = {"state": raw_obs["state"][0]} if self._sends_state else {}
        images = {camera: frames[0] for camera, frames in raw_obs["frames"].items()}
        return {"images": images, "task_description": raw_obs["instruction"][0]} | state

    def get_step_result(self, step_result: StepResult) -> dict[str, Any]:
        """The world's own success flag."""
        return {"success": step_result.info["success"]}

    def get_metadata(self) -> dict[str, Any]:
        """The benchmark's metadata; the step limit is the world's, one per task, not vla-eval's."""
        return {"max_steps": 10_000}

    def get_action_spec(self) -> dict[str, DimSpec]:
        """As `llamarm serve` says its policy's."""
        parts = action_spec(self.world.world_spec.action)
        return {name: DimSpec.from_dict(part) for name, part in parts.items()}

    def get_observation_spec(self) -> dict[str, DimSpec]:
        """As `llamarm serve` says its policy's."""
        spec = self.world.world_spec
        cameras = {camera.name: IMAGE_RGB for camera in spec.cameras}
        state = DimSpec("state", spec.state.size, " ".join(spec.state.names))
        return cameras | {"state": state, "language": LANGUAGE}

    def cleanup(self) -> None:
        """Close the world."""
        self.world.close()
