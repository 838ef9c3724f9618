"""Import a function of the user's own module, by MODULE:FUNCTION."""

from __future__ import annotations

import pkgutil
import sys
from pathlib import Path
from typing import Any

from envs.errors import UserError

_ROOT = Path(__file__).resolve().parents[1]
_OURS = ("agent", "envs", "llamarm", "rollout", "vla_model")
"""Our packages, which lie in that folder."""


def imported(kind: str, name: str) -> Any:
    """Import MODULE:FUNCTION, with the current folder on the path, in workers too.

    Raises:
        UserError: the name is malformed, cannot be imported, or is not a function; or the current folder has a package
            with the name of one of ours.
    """
    module, _, function = name.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), *function.split("."))):
        raise UserError(f"{kind} {name!r} is not MODULE:FUNCTION, as in my_package.my_module:make")
    here = Path.cwd()
    for package in _OURS:
        for path in (here / package / "__init__.py", here / f"{package}.py"):
            if path.exists() and here != _ROOT:
                raise UserError(
                    f"{kind} {name!r} cannot be imported: {path} is in the way of llamarm's own package {package!r}, "
                    "and Python imports only one of the two; rename yours"
                )
    # Workers get this path, and may run in another folder.
    if str(here) not in sys.path:
        sys.path.insert(0, str(here))
    try:
        found = pkgutil.resolve_name(name)
    except (ImportError, AttributeError) as error:
        package = module.partition(".")[0]
        hint = f"; Python looks in {here} and in PYTHONPATH" if isinstance(error, ModuleNotFoundError) else ""
        if package in _OURS:
            hint = f"; {package!r} is llamarm's own and hides a package of yours, so rename yours"
        raise UserError(f"{kind} {name!r} cannot be imported: {error}{hint}") from error
    except (Exception, SystemExit) as error:  # any error of the user's module, and sys.exit in a script
        raise UserError(f"{kind} {name!r} cannot be imported: {type(error).__name__}: {error}") from error
    if not callable(found):
        raise UserError(f"{kind} {name!r} is a {type(found).__name__}, expected a function")
    return found
