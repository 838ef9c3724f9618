"""Options of the commands that evaluate a policy, and the tasks, worlds and policy that they resolve to."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import tyro
from annotated_types import Interval, MinLen

from agent.evaluation.measure import EvaluationConfig, EvaluationSetup
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
from vla_model.policy import VLAPolicy, on_best_device
from vla_model.types import Policy


@dataclass(frozen=True, kw_only=True)
class ActingConfig:
    """The world, episodes and protocol of an evaluation."""

    world: str | None = None
    """Suite of worlds, or MODULE:FUNCTION of your own; default: the policy's suite."""
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


@contextmanager
def acting(
    policy: str, config: ActingConfig, workers: WorkersConfig, *, loaded: VLAPolicy | None = None
) -> Generator[tuple[EvaluationSetup, Sequence[str], int | None]]:
    """The policy with its worlds, the tasks, and the number of actions to execute of each chunk (None for all).

    Args:
        policy: a run, a checkpoint, a policy's folder, or "expert".
        config: world, episodes and protocol.
        workers: worker processes.
        loaded: the policy, if already loaded.

    Raises:
        UserError: no such policy, world or task, the policy expects other cameras, states or actions, or
            n_action_steps exceeds the chunk size.
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
    """`out`, else the run's own folder.

    Raises:
        UserError: `out` is None, and the policy is not a run.
    """
    if out is None and not RunFolder(Path(policy)).record_file.exists():
        raise UserError(f"{policy} is not a run's folder; --out names a folder for {file}")
    return out or Path(policy)
