"""Options of the commands that evaluate a policy, and the tasks, worlds and policy that they resolve to."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from annotated_types import Interval, MinLen

from agent.evaluation.config import EvaluationConfig
from agent.runs.checks import NumWorlds, check_episodes, check_world
from agent.runs.policies import DEFAULT_WORLD, say_place, steps_to_execute, where_to_act
from agent.runs.run_folder import RunFolder, policy_folder
from agent.runs.worlds import WorldPython, named_world
from agent.training.demonstrations import check_expert
from envs.errors import UserError
from envs.make import check_device, make_world
from envs.world import World
from rollout.expert import ExpertPolicy
from rollout.workers.workers import WorkersConfig
from vla_model.files.deployment import Deployment, saved_world
from vla_model.numerics.dtypes import DtypeName
from vla_model.types import Policy

if TYPE_CHECKING:
    from agent.evaluation.measure import EvaluationSetup
    from agent.serve.foreign.sources import PolicySource
    from vla_model.policy import VLAPolicy

EXPERT = "expert"
"""Name of the world's scripted expert as a policy."""


@dataclass(frozen=True, kw_only=True)
class ActingConfig:
    """The world, episodes and protocol of an evaluation."""

    world: str | None = None
    """Suite of worlds, or MODULE:FUNCTION of your own; default: the policy's suite."""
    world_python: WorldPython = None
    """Interpreter in which the world, a MODULE:FUNCTION, runs, for packages that conflict with ours
    (docs/your_task.md)."""
    device: Literal["cpu", "warp", "cuda"] = "cpu"
    """Simulator: MuJoCo, or MuJoCo Warp on the CPU or on a GPU (then workers need --gpus-per-worker)."""
    tasks: Annotated[tuple[str, ...], tyro.conf.arg(metavar="TASK ...")] = ()
    """Default: the tasks that the policy was trained for, or all of another world."""
    variations: Annotated[tuple[str, ...], MinLen(1), tyro.conf.arg(metavar="NAME ...")] = ("train",)
    """Variations of the world; each is evaluated on the same seeds."""
    episodes: Annotated[int, Interval(ge=1, le=100_000)] = 20
    """Episodes per task and variation."""
    n_action_steps: Annotated[int | None, Interval(ge=1, le=1_000), tyro.conf.arg(metavar="INT")] = None
    """Actions to execute of each chunk; default: the policy's."""
    dtype: DtypeName = "auto"
    """Number format of the policy's weights and computation; "auto" is bfloat16 where the hardware has it."""
    num_worlds: NumWorlds = 8
    """Parallel worlds in each process."""

    @property
    def named_world(self) -> str | None:
        """The name of the world for `make_world`, if one is given.

        Raises:
            UserError: see `named_world`.
        """
        return named_world(self.world, self.world_python)

    def evaluation(self, n_action_steps: int | None, *, controls: bool = False, videos: int = 0) -> EvaluationConfig:
        """The evaluation's config, with `n_action_steps` actions executed of each chunk."""
        return EvaluationConfig(
            episodes_per_task=self.episodes,
            variations=self.variations,
            controls=controls,
            videos_per_task=videos,
            n_action_steps=n_action_steps,
            num_worlds=self.num_worlds,
        )


def check_names(policy: str, world: str | None, tasks: Sequence[str], variations: Sequence[str]) -> None:
    """Check the names of a policy's folder, and of tasks and variations of a suite, before torch is loaded.

    Args:
        policy: a policy's folder, or "expert".
        world: where it is to act; None for its own.
        tasks: of that world.
        variations: of that world.

    Raises:
        UserError: one of them does not exist.
    """
    own = None if policy == EXPERT else saved_world(policy_folder(policy))
    name = check_world(world or own or DEFAULT_WORLD)
    if ":" not in name:
        with closing(make_world(name)) as made:
            check_episodes(made, tasks, variations)


@contextmanager
def acting(
    name: str, source: PolicySource, config: ActingConfig, workers: WorkersConfig
) -> Generator[tuple[EvaluationSetup, Sequence[str], int | None]]:
    """The policy with its worlds, the tasks, and the number of actions to execute of each chunk (None for all).

    Raises:
        UserError: no such world or task, the policy expects other cameras, states or actions, or n_action_steps exceeds
            the chunk size.
    """
    if config.named_world is not None:
        check_world(config.named_world)
    n_action_steps = source.steps(config.n_action_steps)
    made_for = source.deployment
    world_name, named = where_to_act(name, made_for, config.named_world, config.tasks, anywhere=name == EXPERT)
    check_device(world_name, config.device)
    with closing(make_world(world_name)) as world, closing(source):
        tasks = check_episodes(world, named, config.variations)
        source.check(world, tasks, config.variations[0])
        say_place(name, made_for, world_name, named)
        worlds = partial(make_world, world_name, device=config.device)

        from agent.evaluation.measure import EvaluationSetup

        yield EvaluationSetup(world, worlds, source.make_policy, workers), tasks, n_action_steps


@dataclass(frozen=True)
class Folder:
    """PolicySource of a loaded policy of ours."""

    name: str
    policy: VLAPolicy

    @property
    def deployment(self) -> Deployment | None:
        """As saved with the policy, or recorded by its run."""
        return self.policy.processor.deployment

    def steps(self, asked: int | None) -> int | None:
        """As asked, else the policy's."""
        return steps_to_execute(self.name, self.policy, asked)

    def check(self, world: World, tasks: Sequence[str], variation: str) -> None:
        """The world is the policy's."""
        del tasks, variation
        self.policy.processor.check(world.world_spec)

    def make_policy(self, world: World) -> Policy:
        """On the best device."""
        from vla_model.policy import on_best_device

        return on_best_device(self.policy, world)

    def close(self) -> None:
        """Nothing to close."""


class Expert:
    """PolicySource of the world's scripted expert."""

    deployment: Deployment | None = None

    def steps(self, asked: int | None) -> int | None:
        """As asked, else its only one."""
        return asked

    def check(self, world: World, tasks: Sequence[str], variation: str) -> None:
        """The world has an expert."""
        check_expert(world, tasks, variation)

    def make_policy(self, world: World) -> Policy:
        """Acts in that world only."""
        return ExpertPolicy(world)

    def close(self) -> None:
        """Nothing to close."""


def folder_for(policy: str, out: Path | None, file: str) -> Path:
    """`out`, else the run's own folder.

    Raises:
        UserError: `out` is None, and the policy is not a run, or the name of a folder without one.
    """
    if out is None and not RunFolder(Path(policy)).record_file.exists():
        if policy != EXPERT and ":" not in policy:
            policy_folder(policy)
        raise UserError(f"{policy} is not a run's folder; --out names a folder for {file}")
    return out or Path(policy)
