"""Names of action distributions, for options and configs; importing this loads no library."""

from __future__ import annotations

from envs.errors import UserError

NAMES = ("laplace", "tokens", "flow")
"""Those of action_head.DISTRIBUTIONS."""


def check_distribution(name: str) -> None:
    """
    Raises:
        UserError: no action distribution has that name.
    """
    if name not in NAMES:
        raise UserError(f"action distribution {name!r} does not exist; distributions: {', '.join(NAMES)}")
