"""LiberoWorld: N LIBERO environments, each running any of its tasks in its own process."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from envs.errors import UserError
from envs.suites.hosted.interpreter import Interpreter
from envs.suites.hosted.world import HostedWorld
from envs.suites.libero import tasks
from envs.suites.libero.sensor import FAST, PUBLISHED, PUBLISHED_128, Sensor
from envs.types import EpisodeSpec

SUITE = "libero"
INTERPRETER = Interpreter(
    title="LIBERO", variable="LLAMARM_LIBERO_PYTHON", folder=".venv-libero", command="make libero"
)
ANY_MUJOCO_VARIABLE = "LLAMARM_LIBERO_ANY_MUJOCO"
"""Environment variable: 1 to accept another version of MuJoCo than the suite's results hold for."""
FOUR = ("spatial", "object", "goal", "10")
"""The suites of published averages."""


@dataclass(frozen=True, kw_only=True)
class LiberoConfig:
    """Suites, sensor and sentences."""

    suites: tuple[str, ...] = FOUR
    """Keys of tasks.SUITES."""
    sensor: Sensor = FAST
    published_sentences: bool = False
    """tasks.published_sentence, in place of the BDDL files' sentences."""


WORLDS = {
    f"libero{ending}{of_sensor}": LiberoConfig(suites=suites, sensor=sensor, published_sentences=sensor is PUBLISHED)
    for of_sensor, sensor in (("", FAST), ("-published", PUBLISHED), ("-published-128", PUBLISHED_128))
    for ending, suites in (("", FOUR), *((f"-{suite}", (suite,)) for suite in tasks.SUITES))
}
"""{name for `make_world`: config}."""


class LiberoWorld(HostedWorld):
    """LIBERO as a World. Its processes start with the first episode; a world compiles a task when it begins another."""

    one_expert = True
    absent_variations = dict.fromkeys(
        tasks.WITHOUT_RESOURCES, "of LIBERO-PRO has neither tasks nor initial states in the package"
    )

    def __init__(self, num_worlds: int, config: LiberoConfig | None = None) -> None:
        """N worlds without an episode.

        Raises:
            UserError: the interpreter with LIBERO or a suite does not exist.
        """
        self.config = config = config or LiberoConfig()
        if unknown := [suite for suite in config.suites if suite not in tasks.SUITES]:
            raise UserError(f"LIBERO has no suite {unknown[0]!r}; suites: {', '.join(tasks.SUITES)}")
        any_mujoco = os.environ.get(ANY_MUJOCO_VARIABLE) == "1"
        super().__init__(
            num_worlds=num_worlds,
            world_spec=config.sensor.world_spec(config.suites),
            suite=SUITE,
            tasks=tuple(task for suite in config.suites for task in tasks.SUITES[suite]),
            launch=INTERPRETER.launch(
                "envs.suites.libero.episodes:Episodes",
                {
                    "sensor": asdict(config.sensor),
                    "any_mujoco": any_mujoco,
                    "published_sentences": config.published_sentences,
                },
            ),
            reward_weights={"success": 1.0},
        )
        self.task_groups = {suite: tasks.SUITES[suite] for suite in config.suites}
        if any_mujoco and (version := _mujoco_of(INTERPRETER.python())) != tasks.MUJOCO:
            self.notes = {"mujoco": f"{version}, not {tasks.MUJOCO}: other physics and frames than published results"}

    def in_order(self, specs: Sequence[EpisodeSpec]) -> list[EpisodeSpec]:
        """One scene after the other, because each change of scene takes a world 3 to 6 s."""

        def scene(spec: EpisodeSpec) -> tuple[int, str, int]:
            return self.tasks.index(spec.task), spec.variation, tasks.scene_number(spec.variation, spec.seed)

        return sorted(specs, key=scene)

    def variations_of(self, task: str) -> tuple[str, ...]:
        return tasks.variations_of(task)


def _mujoco_of(python: Path) -> str:
    """The version of MuJoCo in that interpreter.

    Raises:
        UserError: it has none.
    """
    ask = "from importlib.metadata import version; print(version('mujoco'))"
    try:
        run = subprocess.run([str(python), "-c", ask], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise UserError(f"{python} cannot run {INTERPRETER.title}: it has no mujoco; {INTERPRETER.remedy}") from error
    return run.stdout.strip()
