"""What the commands of `llamarm` share: parsing options, and finding a recipe."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import make_dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import tyro

from agent.runs.checks import check_config
from agent.runs.names import check_name
from envs.errors import UserError
from vla_model.files.old_names import option_by_new_name

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from agent.training.config import ImproveConfig, RunConfig
    from vla_model.policy import VLAPolicy

Options = TypeVar("Options", bound="DataclassInstance")
_SMALL_MODEL = 10_000_000
"""Parameters below which one thread is enough."""
_MARKERS = (tyro.conf.AvoidSubcommands, tyro.conf.FlagCreatePairsOff)


def parse(options: type[Options], command: str, args: Sequence[str]) -> Options:
    """The command's options, from the arguments after its name.

    Raises:
        UserError: an option is empty or out of its range, or options contradict each other.
    """
    _check_written(args)
    # tyro itself asks neither NO_COLOR nor, for refusals, whether standard error is a terminal.
    terminals = all(stream is not None and stream.isatty() for stream in (sys.stdout, sys.stderr))
    tyro._experimental_options["ansi_codes"] = terminals and not os.environ.get("NO_COLOR")
    named = [option_by_new_name(arg) for arg in args]
    parsed = tyro.cli(options, prog=f"llamarm {command}", args=named, config=_MARKERS)
    check_config(parsed)
    return parsed


def _check_written(args: Sequence[str]) -> None:
    """Refuse empty values: an unset shell variable gives one, which as a path would be the current folder."""
    for before, arg in zip(("", *args), args, strict=False):
        if arg == "" or (arg.startswith("--") and arg.endswith("=")):
            option = arg or before
            where = f"{option.rstrip('=')} has" if option.startswith("--") else "there is"
            raise UserError(f"{where} an empty value; write one, or leave it out")


def parse_with(options: type[Any], command: str, args: Sequence[str], **configs: object) -> Any:
    """The command's own options and those of configs, each field of which is an option."""
    fields: list[tuple[str, Any, object]] = [
        (name, Annotated[type(config), tyro.conf.arg(name="")], config)  # ty: ignore[invalid-type-form]
        for name, config in configs.items()
    ]
    joined: type[Any] = make_dataclass(options.__name__, fields, bases=(options,), frozen=True, kw_only=True)
    joined.__doc__ = options.__doc__
    return parse(joined, command, args)


def recipe_of(command: str, args: list[str]) -> tuple[str, RunConfig | ImproveConfig]:
    """Name and config of the recipe that the first argument names; without one, print the recipes and exit.

    Raises:
        UserError: there is no such recipe.
    """
    from agent.recipes import RECIPES

    if args and not args[0].startswith("-"):
        name = check_name("recipe", args[0], RECIPES)
        return name, RECIPES[name]()
    width = max(map(len, RECIPES))
    print(f"usage: llamarm {command} RECIPE --out DIR ...\n\nRecipes:")
    for name, recipe in RECIPES.items():
        print(f"  {name:{width}}  {(recipe.__doc__ or '').strip().partition(chr(10))[0]}")
    print(f"\nllamarm {command} RECIPE --help lists its options.")
    sys.exit(0 if set(args) & {"-h", "--help"} else 2)


def recipe_for(world: str) -> str:
    """The recipe that clones demonstrations of a world: the first of that world, else the demo's."""
    from agent.recipes import RECIPES

    configs = {name: recipe() for name, recipe in RECIPES.items()}
    cloning = {name: config.from_demonstrations() for name, config in configs.items() if config.loop == "train"}
    return next((name for name, config in cloning.items() if config.demonstrations.world == world), "sft_demo")


def limit_threads(policy: VLAPolicy | None, *, spared_cores: int = 0) -> None:
    """Use one torch thread for a small policy, else as many as now but `spared_cores`.

    On two idle cores a second thread makes a decision of 1.8 M parameters for eight worlds a fifth faster, and one of
    29 M half as fast again. But beside other programs the threads wait for each other in every operation: an evaluation
    of 1.8 M took nine times as long with two threads as with one.

    Args:
        policy: None for a scripted expert.
        spared_cores: for the control loop or server in this process.
    """
    import torch

    is_small = policy is None or sum(weight.numel() for weight in policy.model.parameters()) < _SMALL_MODEL
    torch.set_num_threads(1 if is_small else max(1, torch.get_num_threads() - spared_cores))
