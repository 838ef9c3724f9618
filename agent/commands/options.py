"""What the commands of `llamarm` share: reading options, and opening the policy that one names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import make_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import tyro

from agent.runs.checks import check_config
from agent.runs.deployment import recorded_deployment, say_differences, say_of
from agent.runs.names import check_name
from agent.runs.run_folder import policy_folder
from envs.errors import UserError
from vla_model.files.deployment import check_execute_steps

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from vla_model.numerics.dtypes import DtypeName
    from vla_model.policy import VLAPolicy

Options = TypeVar("Options", bound="DataclassInstance")
DEFAULT_WORLD = "tabletop"
_MARKERS = (tyro.conf.AvoidSubcommands, tyro.conf.FlagCreatePairsOff)


def parse(options: type[Options], command: str, args: Sequence[str]) -> Options:
    """The command's options, from its part of the command line.

    Raises:
        UserError: one is empty, or out of its range, or they do not fit each other.
    """
    _check_written(args)
    parsed = tyro.cli(options, prog=f"llamarm {command}", args=args, config=_MARKERS)
    check_config(parsed)
    return parsed


def _check_written(args: Sequence[str]) -> None:
    """A shell's variable that is not set leaves an empty text, which as a path would be the current folder."""
    for before, arg in zip(("", *args), args, strict=False):
        if arg == "" or (arg.startswith("--") and arg.endswith("=")):
            option = arg or before
            where = f"{option.rstrip('=')} has" if option.startswith("--") else "there is"
            raise UserError(f"{where} an empty value; write one, or leave it out")


def parse_with(options: type[Any], command: str, args: Sequence[str], **configs: object) -> Any:
    """The command's own options joined with configs, in which every field is an option too."""
    fields: list[tuple[str, Any, object]] = [
        (name, Annotated[type(config), tyro.conf.arg(name="")], config)  # ty: ignore[invalid-type-form]
        for name, config in configs.items()
    ]
    joined: type[Any] = make_dataclass(options.__name__, fields, bases=(options,), frozen=True, kw_only=True)
    joined.__doc__ = options.__doc__
    return parse(joined, command, args)


def load_policy(name: str, dtype: DtypeName = "auto") -> VLAPolicy:
    """The policy of a run, a checkpoint or a policy's folder, which computes in that number format.

    It knows how it is meant to be used, unless neither its folder nor a run's record says so.
    """
    from vla_model.policy import VLAPolicy

    folder = policy_folder(Path(name))
    checkpoint = folder.parent.name
    policy = VLAPolicy.from_pretrained(folder, version=int(checkpoint) if checkpoint.isdecimal() else 0, dtype=dtype)
    if policy.processor.deployment is None:
        policy.processor.deployment = recorded_deployment(name, policy.model.config.chunk_length)
    return policy


def check_world(name: str) -> str:
    """The name itself, if it is a suite's or of the form MODULE:FUNCTION.

    Raises:
        UserError: it is neither.
    """
    from envs.make import WORLDS

    return name if ":" in name else check_name("world", name, WORLDS)


def steps_to_execute(name: str, policy: VLAPolicy, asked: int | None) -> int:
    """Actions to execute of each chunk: as asked, else as the policy was made for. What differs, or is not known, is
    said.

    Raises:
        UserError: a chunk has not so many actions.
    """
    made_for, length = policy.processor.deployment, policy.model.config.chunk_length
    steps = policy.execute_steps if asked is None else asked
    check_execute_steps(steps, length)
    if made_for is not None:
        say_differences(name, made_for, replace(made_for, execute_steps=steps))
    elif asked is None:
        say_of(name, f"how many actions of a chunk to execute is not known; all {length} are (--execute-steps)")
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


def spare_a_core() -> None:
    """Compute with one thread fewer: what waits for the policy in this process needs a core of its own."""
    import torch

    torch.set_num_threads(max(1, torch.get_num_threads() - 1))
