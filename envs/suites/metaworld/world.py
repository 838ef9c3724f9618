"""MetaworldWorld: N Meta-World environments, each running any of its tasks in its own process."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from envs.errors import UserError
from envs.suites.hosted.interpreter import Interpreter
from envs.suites.hosted.world import HostedWorld
from envs.suites.metaworld import tasks
from envs.suites.metaworld.sensor import FAST, PUBLISHED, Sensor

SUITE = "metaworld"
INTERPRETER = Interpreter(
    title="Meta-World",
    variable="LLAMARM_METAWORLD_PYTHON",
    folder=".venv-metaworld",
    command="make metaworld",
)
MAX_STEPS = 400
"""As in LeRobot's config and Evo-1."""
LARGEST_MAX_STEPS = 500
"""The suite's own limit, after which its environments refuse to step."""


@dataclass(frozen=True, kw_only=True)
class MetaworldConfig:
    """Tasks, sensor, reward weights and step limit."""

    tasks: tuple[str, ...] = tuple(tasks.TASKS)
    sensor: Sensor = FAST
    max_steps: int = MAX_STEPS
    """At most LARGEST_MAX_STEPS. An episode ends with its first success."""
    success_weight: float = 1.0
    """Weight of the reward term "success": 1 in the step in which the task succeeds."""
    dense_weight: float = 0.0
    """Weight of the reward term "dense": the suite's own shaped reward, divided by its maximum, 10."""


WORLDS = {
    "metaworld-mt10": MetaworldConfig(tasks=tasks.MT10),
    "metaworld-mt50": MetaworldConfig(),
    "metaworld-mt10-published": MetaworldConfig(tasks=tasks.MT10, sensor=PUBLISHED),
    "metaworld-mt50-published": MetaworldConfig(sensor=PUBLISHED),
}
"""{name for `make_world`: config}."""


class MetaworldWorld(HostedWorld):
    """Meta-World as a World. Its processes start with the first episode."""

    def __init__(self, num_worlds: int, config: MetaworldConfig | None = None) -> None:
        """N worlds without an episode.

        Raises:
            UserError: the interpreter with Meta-World or a task does not exist, or the step limit is not 1 to 500.
        """
        self.config = config = config or MetaworldConfig()
        if unknown := [task for task in config.tasks if task not in tasks.TASKS]:
            raise UserError(f"task {unknown[0]!r} does not exist in Meta-World; tasks: {', '.join(tasks.TASKS)}")
        if not 1 <= config.max_steps <= LARGEST_MAX_STEPS:
            raise UserError(f"max_steps must be 1 to {LARGEST_MAX_STEPS}, got {config.max_steps}")
        super().__init__(
            num_worlds=num_worlds,
            world_spec=config.sensor.world_spec,
            suite=SUITE,
            tasks=tuple(config.tasks),
            launch=INTERPRETER.launch(
                "envs.suites.metaworld.simulation:Simulation",
                {"sensor": asdict(config.sensor), "max_steps": config.max_steps},
            ),
            reward_weights={"success": config.success_weight, "dense": config.dense_weight},
        )
        kept = {split: tuple(task for task in of if task in config.tasks) for split, of in tasks.SPLITS.items()}
        self.task_groups = {split: of for split, of in kept.items() if of}

    def variations_of(self, task: str) -> tuple[str, ...]:
        del task
        return tuple(tasks.VARIATIONS)
