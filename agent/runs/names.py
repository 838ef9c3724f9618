"""Validation of names that users type."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from envs.errors import UserError


def check_name(kind: str, name: str, known: Iterable[str]) -> str:
    """The name itself, if it is known.

    Raises:
        UserError: it is unknown; the message suggests the closest and lists all.

    Examples:
        >>> check_name("task", "lfit", ["lift", "stack"])
        Traceback (most recent call last):
        envs.errors.UserError: task 'lfit' does not exist, did you mean 'lift'? There are: lift, stack
    """
    names = list(known)
    if name in names:
        return name
    hint = "".join(f", did you mean {match!r}?" for match in get_close_matches(name, names, n=1)) or "."
    raise UserError(f"{kind} {name!r} does not exist{hint} There are: {', '.join(names)}")
