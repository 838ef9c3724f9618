"""Loading a policy, and its world, tasks and n_action_steps: those of its deployment unless the user sets others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from agent.runs.checks import check_world
from agent.runs.deployment import recorded_deployment, say_differences
from agent.runs.messages import say
from agent.runs.run_folder import policy_folder
from envs.errors import UserError
from vla_model.files.deployment import Deployment, check_n_action_steps
from vla_model.numerics.dtypes import DtypeName

if TYPE_CHECKING:
    from vla_model.policy import VLAPolicy

DEFAULT_WORLD = "tabletop"


def load_policy(path: str | Path, dtype: DtypeName = "auto") -> VLAPolicy:
    """The policy of a run (its best, else its last checkpoint), a checkpoint or a policy's folder.

    Its processor has the policy's deployment, if its folder or its run's record has one.

    Args:
        dtype: number format of weights and computation; "auto" is bfloat16 where the hardware has it.

    Raises:
        UserError: the folder is none of these, or damaged.
    """
    folder = policy_folder(path)

    from vla_model.policy import VLAPolicy

    checkpoint = folder.parent.name
    policy = VLAPolicy.from_pretrained(folder, version=int(checkpoint) if checkpoint.isdecimal() else 0, dtype=dtype)
    if policy.processor.deployment is None:
        policy.processor.deployment = recorded_deployment(path, policy.model.config.chunk_size)
    return policy


def steps_to_execute(name: str, policy: VLAPolicy, asked: int | None) -> int:
    """Actions to execute of each chunk: `asked`, else the policy's. Prints a difference, or that the policy has none.

    Raises:
        UserError: the number exceeds the chunk size.
    """
    made_for, length = policy.processor.deployment, policy.model.config.chunk_size
    steps = policy.n_action_steps if asked is None else asked
    check_n_action_steps(steps, length)
    if made_for is not None:
        say_differences(name, made_for, replace(made_for, n_action_steps=steps))
    elif asked is None:
        say(name, f"its n_action_steps is not known; all {length} actions of a chunk are executed (--n-action-steps)")
    return steps


def where_to_act(
    name: str, made_for: Deployment | None, world: str | None, tasks: tuple[str, ...], *, anywhere: bool = False
) -> tuple[str, tuple[str, ...]]:
    """The names of a world and of its tasks (empty for all): as given, else the policy's. Prints an unknown world;
    `say_place` prints differences, once the tasks are checked.

    A policy's folder is not trusted, so no module that it names is imported: a world of the user's own,
    MODULE:FUNCTION, must be named on the command line.

    Args:
        made_for: the policy's deployment, if that is known.
        world: given by the user, else None.
        anywhere: whether the policy acts in any world, as a scripted expert does.

    Raises:
        UserError: see check_world; or `world` is None and the policy's is a MODULE:FUNCTION.
    """
    known = None if made_for is None else made_for.world
    if world is None and known is not None and ":" in known:
        raise UserError(
            f"{name} was made for the world {known!r}, a module that is not imported on the word of a policy's folder; "
            f"if you trust it, name it: --world {known}"
        )
    chosen = check_world(world or known or DEFAULT_WORLD)
    if made_for is None or known is None:
        if not anywhere and world is None:
            say(name, f"its world is not known; it acts in {chosen} (--world)")
        return chosen, tasks
    return chosen, tasks or (made_for.tasks if chosen == known else ())


def say_place(name: str, made_for: Deployment | None, world: str, tasks: tuple[str, ...]) -> None:
    """Print how a world and its tasks (empty for all) differ from the policy's, if those are known."""
    if made_for is not None and made_for.world is not None:
        say_differences(name, made_for, replace(made_for, world=world, tasks=tasks))
