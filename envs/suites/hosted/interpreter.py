"""The interpreter of a suite whose packages conflict with ours, and what runs there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from envs.errors import UserError

ROOT = Path(__file__).parents[3]
"""The folder with our packages."""


@dataclass(frozen=True, kw_only=True)
class Launch:
    """What runs in the processes of worlds."""

    title: str
    """Names the suite in messages."""
    python: Path
    """The interpreter."""
    target: str
    """The suite's HostedSimulation, MODULE:CLASS."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of the class, as JSON can hold them."""
    folders: tuple[str, ...] = ()
    """Where modules are looked for first."""
    remedy: str = ""
    """What to do if the interpreter lacks a package."""


@dataclass(frozen=True, kw_only=True)
class Interpreter:
    """Where a suite's interpreter is, and what builds it."""

    title: str
    """The suite's name in messages, e.g. "Meta-World"."""
    variable: str
    """Environment variable that names another interpreter."""
    folder: str
    """The virtual environment that `command` builds, in our root."""
    command: str
    """Builds it, e.g. "make metaworld"."""

    @property
    def path(self) -> Path:
        """Where the interpreter is, if it was built."""
        return self._place()[0]

    def python(self) -> Path:
        """The interpreter.

        Raises:
            UserError: it does not exist.
        """
        python, called = self._place()
        if not python.exists():
            raise UserError(
                f"{self.title} runs in an interpreter of its own, and {called} does not exist; {self.remedy}"
            )
        return python

    def launch(self, target: str, arguments: Mapping[str, Any]) -> Launch:
        """A launch in this interpreter.

        Raises:
            UserError: it does not exist.
        """
        return Launch(title=self.title, python=self.python(), target=target, arguments=arguments, remedy=self.remedy)

    @property
    def remedy(self) -> str:
        """What to do where it does not exist or lacks a package."""
        return f"build it with: {self.command}"

    def _place(self) -> tuple[Path, str]:
        """Where the interpreter is, if it was built, and the subject of a sentence about it."""
        if named := os.environ.get(self.variable):
            return Path(named), f"{self.variable} names {named}, which"
        built = ROOT / self.folder / "bin" / "python"
        return built, str(built)
