"""The policy that a user names, and where and how it acts: as it was made for, unless they say otherwise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from agent.runs.checks import check_world
from agent.runs.deployment import recorded_deployment, say_differences, say_of
from agent.runs.run_folder import policy_folder
from envs.errors import UserError
from vla_model.files.deployment import check_n_action_steps
from vla_model.numerics.dtypes import DtypeName
from vla_model.policy import VLAPolicy

DEFAULT_WORLD = "tabletop"


def load_policy(path: str | Path, dtype: DtypeName = "auto") -> VLAPolicy:
    """The policy of a run (its best, else its last checkpoint), a checkpoint or a policy's folder.

    It knows how it is meant to be used, unless neither its folder nor a run's record says so.

    Args:
        path: of the folder.
        dtype: what it computes in and holds its weights in; "auto" is bfloat16 where the hardware has it.

    Raises:
        UserError: the folder is none of these, or damaged.
    """
    folder = policy_folder(path)
    checkpoint = folder.parent.name
    policy = VLAPolicy.from_pretrained(folder, version=int(checkpoint) if checkpoint.isdecimal() else 0, dtype=dtype)
    if policy.processor.deployment is None:
        policy.processor.deployment = recorded_deployment(path, policy.model.config.chunk_size)
    return policy


def steps_to_execute(name: str, policy: VLAPolicy, asked: int | None) -> int:
    """Actions to execute of each chunk: as asked, else as the policy was made for. What differs, or is not known, is
    said.

    Raises:
        UserError: a chunk has not so many actions.
    """
    made_for, length = policy.processor.deployment, policy.model.config.chunk_size
    steps = policy.n_action_steps if asked is None else asked
    check_n_action_steps(steps, length)
    if made_for is not None:
        say_differences(name, made_for, replace(made_for, n_action_steps=steps))
    elif asked is None:
        say_of(name, f"how many actions of a chunk to execute is not known; all {length} are (--n-action-steps)")
    return steps


def where_to_act(
    name: str, policy: VLAPolicy | None, world: str | None, tasks: tuple[str, ...]
) -> tuple[str, tuple[str, ...]]:
    """The name of a world and tasks of it, none for all: as asked, else those that the policy was made for. Where no
    world is known, that is said; what differs, `say_place` says, once the world has these tasks.

    A policy's folder may come from anyone, so no module that it names is imported: the command line must name a world
    of one's own, MODULE:FUNCTION.

    Args:
        name: of the policy.
        policy: None for a scripted expert, which is made for every task.
        world: asked for.
        tasks: asked for.

    Raises:
        UserError: see check_world; or none is asked for, and the policy was made for a MODULE:FUNCTION.
    """
    made_for = None if policy is None else policy.processor.deployment
    known = None if made_for is None else made_for.world
    if world is None and known is not None and ":" in known:
        raise UserError(
            f"{name} was made for the world {known!r}, a module of somebody's own, and a policy's folder has none "
            f"imported; if you trust that module, name it: --world {known}"
        )
    chosen = check_world(world or known or DEFAULT_WORLD)
    if made_for is None or known is None:
        if policy is not None and world is None:
            say_of(name, f"which world it was made for is not known; it acts in {chosen} (--world)")
        return chosen, tasks
    return chosen, tasks or (made_for.tasks if chosen == known else ())


def say_place(name: str, policy: VLAPolicy | None, world: str, tasks: tuple[str, ...]) -> None:
    """Say in what a world and its tasks, none for all, are others than the policy was made for, as far as known."""
    made_for = None if policy is None else policy.processor.deployment
    if made_for is not None and made_for.world is not None:
        say_differences(name, made_for, replace(made_for, world=world, tasks=tasks))
