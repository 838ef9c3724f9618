"""What the commands of `llamarm` share: reading options, and opening the policy that one names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import tyro

from agent.names import check_name
from agent.run_folder import policy_folder, run_of

if TYPE_CHECKING:
    from vla_model.dtypes import DtypeName
    from vla_model.policy import VLAPolicy

Options = TypeVar("Options")
_MARKERS = (tyro.conf.AvoidSubcommands, tyro.conf.FlagCreatePairsOff)


def parse(options: type[Options], command: str, args: Sequence[str]) -> Options:
    """The command's options, from its part of the command line."""
    return tyro.cli(options, prog=f"llamarm {command}", args=args, config=_MARKERS)


def parse_with(options: type[Any], command: str, args: Sequence[str], **configs: object) -> Any:
    """The command's own options joined with configs, in which every field is an option too."""
    fields: list[tuple[str, Any, object]] = [
        (name, Annotated[type(config), tyro.conf.arg(name="")], config)  # ty: ignore[invalid-type-form]
        for name, config in configs.items()
    ]
    joined = make_dataclass(options.__name__, fields, bases=(options,), frozen=True, kw_only=True)
    joined.__doc__ = options.__doc__
    return parse(joined, command, args)


def load_policy(name: str, dtype: DtypeName = "auto") -> VLAPolicy:
    """The policy of a run, a checkpoint or a policy's folder, which computes in that number format."""
    from vla_model.policy import VLAPolicy

    folder = policy_folder(Path(name))
    checkpoint = folder.parent.name
    return VLAPolicy.from_pretrained(folder, version=int(checkpoint) if checkpoint.isdecimal() else 0, dtype=dtype)


def check_world(name: str) -> str:
    """The name itself, if it is a suite's or of the form MODULE:FUNCTION.

    Raises:
        ValueError: it is neither.
    """
    from envs.make import WORLDS

    return name if ":" in name else check_name("world", name, WORLDS)


def recorded_config(policy: str) -> dict[str, Any] | None:
    """The config of the run that the policy is of, if it is of one."""
    run = run_of(policy)
    return run.record["config"] if run else None


def where_to_act(policy: str, world: str | None, tasks: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """The name of a world and tasks of it, none for all: as asked, else those that the policy's run was trained on.

    Raises:
        ValueError: see check_world.
    """
    recorded = recorded_config(policy)
    trained = recorded.get("practice", recorded.get("demonstrations")) if recorded else {}
    name = check_world(world or trained.get("world", "tabletop"))
    return name, tasks or (tuple(trained.get("tasks", ())) if name == trained.get("world") else ())


def steps_to_execute(policy: str, asked: int | None) -> int | None:
    """Of each chunk: as asked, else as the policy's run does, else None."""
    recorded = recorded_config(policy)
    if asked is not None or recorded is None:
        return asked
    return recorded["evaluation"]["execute_steps"]


def spare_a_core() -> None:
    """Compute with one thread fewer: what waits for the policy in this process needs a core of its own."""
    import torch

    torch.set_num_threads(max(1, torch.get_num_threads() - 1))
