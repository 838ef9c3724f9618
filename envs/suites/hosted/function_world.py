"""Worlds of MODULE:FUNCTION in another interpreter: MODULE:FUNCTION@PYTHON (docs/your_task.md)."""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from envs.errors import UserError
from envs.suites.hosted.function_simulation import REWARD
from envs.suites.hosted.interpreter import Launch
from envs.suites.hosted.subprocesses import Subprocesses
from envs.suites.hosted.world import HostedWorld
from envs.types import WorldSpec


def world_name(function: str, python: str | Path) -> str:
    """The name of the worlds of MODULE:FUNCTION in that interpreter, whose path may be relative to the current folder.

    Raises:
        UserError: `function` is not MODULE:FUNCTION, or see `split_name`.
    """
    if ":" not in function or "@" in function:
        raise UserError(f"another interpreter runs a world MODULE:FUNCTION, got {function!r}; leave out --world-python")
    # Links are kept: that of a virtual environment is what makes it one.
    name = f"{function}@{Path(python).absolute()}"
    split_name(name)
    return name


def split_name(name: str) -> tuple[str, Path | None]:
    """MODULE:FUNCTION and the interpreter of MODULE:FUNCTION@PYTHON, None for ours.

    Raises:
        UserError: the interpreter does not exist, or its path is not absolute.
    """
    function, at, path = name.partition("@")
    if not at:
        return function, None
    python = Path(path)
    if not python.is_absolute():
        raise UserError(f"world {name!r} needs the whole path of its interpreter after @, got {path!r}")
    if python.is_dir():
        raise UserError(f"the interpreter of world {function!r} is a folder; name {python}/bin/python")
    if not python.exists():
        raise UserError(
            f"the interpreter of world {function!r} does not exist: {python}; name bin/python of a virtual environment"
        )
    return function, python


class FunctionWorld(HostedWorld):
    """N worlds, each a World of one that the user's function makes in its own process.

    The only reward term is the world's own reward, and phases of the motion are thirds of an episode.
    """

    def __init__(self, num_worlds: int, function: str, python: Path) -> None:
        """Starts the processes, and makes the first world to learn its spec; the others are made with their first
        episode.

        Raises:
            UserError: the interpreter lacks what we need, or the function or its world was refused there.
        """
        launch = Launch(
            title=function,
            python=python,
            target="envs.suites.hosted.function_simulation:FunctionSimulation",
            arguments={"function": function},
            folders=tuple(_own_folders()),
        )
        processes = Subprocesses(max(num_worlds, 1), launch)
        try:
            about = processes.ask({0: {"do": "describe"}})[0]
            self._variations: dict[str, list[str] | None] = about["variations"]
            super().__init__(
                num_worlds=num_worlds,
                world_spec=WorldSpec.of(about["world_spec"]),
                suite=about["suite"],
                tasks=tuple(about["variations"]),
                launch=launch,
                reward_weights={REWARD: 1.0},
                processes=processes,
            )
        except BaseException:
            processes.close()
            raise
        self.task_groups = {name: tuple(tasks) for name, tasks in about["task_groups"].items()}

    def variations_of(self, task: str) -> tuple[str, ...] | None:
        known = self._variations[task]
        return None if known is None else tuple(known)


def _own_folders() -> Iterator[str]:
    """Folders in which modules of the user's own are found, and no library of this interpreter."""
    with suppress(FileNotFoundError):  # the current folder was deleted
        yield str(Path.cwd())
    standard_library = {sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib")}
    for folder in map(Path, filter(None, sys.path)):
        is_standard = any(folder.is_relative_to(path) for path in standard_library)
        is_library = "site-packages" in folder.parts or "dist-packages" in folder.parts
        if folder.is_dir() and not is_standard and not is_library:
            yield str(folder)
