"""Options of the commands that have a policy act and measure it, and what they come to: tasks, worlds and a policy."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import tyro
from annotated_types import Interval, MinLen

from agent.evaluation.measure import EvaluationConfig, EvaluationSetup, on_best_device
from agent.runs.checks import NumWorlds, check_episodes, check_world
from agent.runs.policies import load_policy, say_place, steps_to_execute, where_to_act
from agent.runs.run_folder import RunFolder
from agent.training.demonstrations import check_expert
from envs.errors import UserError
from envs.make import check_device, make_world
from envs.world import World
from rollout.expert import ExpertPolicy
from rollout.workers.workers import WorkersConfig
from vla_model.numerics.dtypes import DtypeName
from vla_model.policy import VLAPolicy
from vla_model.types import Policy


@dataclass(frozen=True, kw_only=True)
class ActingConfig:
    """Where a policy acts, and how."""

    world: str | None = None
    """Suite of worlds, or MODULE:FUNCTION of your own; if not given, the suite that the policy was made for."""
    device: Literal["cpu", "warp", "cuda"] = "cpu"
    """What the worlds run on: MuJoCo, or MuJoCo Warp on the CPU or on a GPU (then workers need --gpus-per-worker)."""
    tasks: Annotated[tuple[str, ...], tyro.conf.arg(metavar="TASK ...")] = ()
    """If none is named, those that the policy was made for, or all of another world."""
    variations: Annotated[tuple[str, ...], MinLen(1), tyro.conf.arg(metavar="NAME ...")] = ("train",)
    """Of the world's episodes; each is run on the same seeds."""
    episodes: Annotated[int, Interval(ge=1, le=100_000)] = 20
    """Per task and variation."""
    n_action_steps: Annotated[int | None, Interval(ge=1, le=1_000), tyro.conf.arg(metavar="INT")] = None
    """Actions to execute of each chunk; if not given, as the policy was made for."""
    dtype: DtypeName = "auto"
    """What the policy computes in and holds its weights in; "auto" is bfloat16 where the hardware has it."""
    num_worlds: NumWorlds = 8
    """Worlds side by side in each process."""

    def evaluation(self, n_action_steps: int | None, *, controls: bool = False, videos: int = 0) -> EvaluationConfig:
        """Which episodes are run, with so many actions executed of each chunk."""
        return EvaluationConfig(
            episodes_per_task=self.episodes,
            variations=self.variations,
            controls=controls,
            videos_per_task=videos,
            n_action_steps=n_action_steps,
            num_worlds=self.num_worlds,
        )


@contextmanager
def acting(
    policy: str, config: ActingConfig, workers: WorkersConfig, *, loaded: VLAPolicy | None = None
) -> Generator[tuple[EvaluationSetup, Sequence[str], int | None]]:
    """Who is measured where, the tasks, and how many actions of each chunk to execute, None for all.

    Args:
        policy: a run, a checkpoint, a policy's folder, or "expert".
        config: where it acts.
        workers: in how many processes.
        loaded: the policy itself, where it is at hand.

    Raises:
        UserError: no such policy, world or task, the policy expects other cameras, states or actions, or a chunk has
            fewer actions than are to be executed.
    """
    if config.world is not None:
        check_world(config.world)
    acts = loaded or (None if policy == "expert" else load_policy(policy, config.dtype))
    n_action_steps = config.n_action_steps if acts is None else steps_to_execute(policy, acts, config.n_action_steps)
    name, named = where_to_act(policy, acts, config.world, config.tasks)
    check_device(name, config.device)
    with closing(make_world(name)) as world:
        tasks = check_episodes(world, named, config.variations)
        say_place(policy, acts, name, named)
        worlds = partial(make_world, name, device=config.device)
        make_policy: Callable[[World], Policy] = ExpertPolicy
        if policy == "expert":
            check_expert(world, tasks, config.variations[0])
        if acts is not None:
            acts.processor.check(world.world_spec)
            make_policy = partial(on_best_device, acts)
        yield EvaluationSetup(world, worlds, make_policy, workers), tasks, n_action_steps


def folder_for(policy: str, out: Path | None, file: str) -> Path:
    """The folder that is asked for, else the run's own.

    Raises:
        UserError: no folder is asked for, and the policy is not a run.
    """
    if out is None and not RunFolder(Path(policy)).record_file.exists():
        raise UserError(f"{policy} is not a run's folder, so --out must say where {file} goes")
    return out or Path(policy)
