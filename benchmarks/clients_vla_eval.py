"""The tabletop as a vla-eval benchmark, evaluated by vla-eval's own runner; see benchmarks/clients.py.

    python clients_vla_eval.py ws://127.0.0.1:8000/vla-eval OUTPUT_DIR EPISODES_PER_TASK TASK ...

In a configuration of vla-eval it is `benchmark: "benchmarks.clients_vla_eval:Tabletop"`, with params `tasks` and
`variation`. The runner queries the policy at every step; the server decides how many steps of a chunk to execute.
"""

from __future__ import annotations

import sys
from typing import Any, ClassVar

import vla_eval
from vla_eval.benchmarks.base import StepBenchmark, StepResult
from vla_eval.specs import IMAGE_RGB, LANGUAGE, DimSpec

from agent.runs.seeds import FIRST_EVALUATION_SEED
from agent.serve.vla_eval import action_spec
from envs.make import make_world
from envs.types import EpisodeSpec, VectorSpec


class Tabletop(StepBenchmark):
    """Held-out episodes of the tabletop: episode i of a task has evaluation's seed i."""

    render_backends: ClassVar[frozenset[str]] = frozenset({"cpu", "gpu"})

    def __init__(self, tasks: list[str], variation: str = "train", send_state: bool = True) -> None:
        super().__init__()
        assert send_state, "the policies of this benchmark read the state"
        self.world = make_world("tabletop")
        self.tasks = tasks
        self.variation = variation

    @classmethod
    def configure_render(cls, mode: str) -> dict[str, str]:
        """Do nothing: envs/simulation/gl.py selects the OpenGL backend."""
        del mode
        return {}

    def get_tasks(self) -> list[dict[str, Any]]:
        """The tasks, by name."""
        return [{"name": task} for task in self.tasks]

    def reset(self, task: dict[str, Any]) -> Any:
        """The first observation of the task's episode."""
        seed = FIRST_EVALUATION_SEED + task["episode_idx"]
        spec = EpisodeSpec(suite=self.world.suite, task=task["name"], seed=seed, variation=self.variation)
        observation, _ = self.world.reset_to([spec], [0])
        return observation

    def step(self, action: dict[str, Any]) -> StepResult:
        """Execute one action."""
        result = self.world.step_chunk(action["actions"][None, None])
        success, done = bool(result.success[0]), bool(result.done[0])
        return StepResult(result.observation, float(result.reward[0, 0]), done, {"success": success})

    def make_obs(self, raw_obs: Any, task: dict[str, Any]) -> dict[str, Any]:
        """The observation in vla-eval's format."""
        del task
        return {
            "images": {camera: frames[0] for camera, frames in raw_obs["frames"].items()},
            "state": raw_obs["state"][0],
            "task_description": raw_obs["instruction"][0],
        }

    def get_step_result(self, step_result: StepResult) -> dict[str, Any]:
        """The step's result, with the world's own success flag."""
        return {"success": step_result.info["success"]}

    def get_metadata(self) -> dict[str, Any]:
        """The benchmark's metadata; the step limit is the world's, one per task, not vla-eval's."""
        return {"max_steps": 10_000}

    def get_action_spec(self) -> dict[str, DimSpec]:
        """As the server says its policy's."""
        parts = action_spec(self.world.world_spec.action)
        return {name: DimSpec.from_dict(part) for name, part in parts.items()}

    def get_observation_spec(self) -> dict[str, DimSpec]:
        """As the server says its policy's."""
        spec = self.world.world_spec
        cameras = {camera.name: IMAGE_RGB for camera in spec.cameras}
        return cameras | {"state": DimSpec("state", spec.state.size, _names(spec.state)), "language": LANGUAGE}


def _names(spec: VectorSpec) -> str:
    return " ".join(spec.names)


def main(url: str, output_dir: str, episodes_per_task: str, *tasks: str) -> None:
    """Evaluate in this process, without Docker; vla-eval writes its files to output_dir."""
    config = {
        "render": "cpu",
        "benchmarks": [
            {
                "benchmark": "benchmarks.clients_vla_eval:Tabletop",
                "episodes_per_task": int(episodes_per_task),
                "params": {"tasks": list(tasks)},
            }
        ],
    }
    vla_eval.run(config, server_url=url, output_dir=output_dir, docker=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
