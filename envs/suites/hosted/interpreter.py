"""The interpreter of a suite whose packages conflict with ours."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from envs.errors import UserError

ROOT = Path(__file__).parents[3]
"""The folder with our packages."""


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

    def python(self) -> Path:
        """The interpreter.

        Raises:
            UserError: it does not exist.
        """
        named = os.environ.get(self.variable)
        python = Path(named) if named else ROOT / self.folder / "bin" / "python"
        if not python.exists():
            where = f"{self.variable} names {python}, which does not exist" if named else f"{python} does not exist"
            raise UserError(
                f"{self.title} runs in an interpreter of its own, and {where}; build it with: {self.command}"
            )
        return python
