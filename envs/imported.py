"""What a user's own module makes, by the name MODULE:FUNCTION."""

from __future__ import annotations

import pkgutil
import sys
from pathlib import Path
from typing import Any

from envs.errors import UserError


def imported(kind: str, name: str) -> Any:
    """The object that MODULE:FUNCTION names, the current folder being one to import from, in workers too.

    Raises:
        UserError: it is not of that form, cannot be imported, or is no function.
    """
    module, colon, function = name.partition(":")
    if not (module and colon and function):
        raise UserError(f"{kind} {name!r} is not MODULE:FUNCTION")
    # Workers are given this path, and they may run in another folder.
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        found = pkgutil.resolve_name(name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"{kind} {name!r} cannot be imported: {error}") from error
    except (Exception, SystemExit) as error:  # whatever its module raises, be it a script that ends
        raise UserError(f"{kind} {name!r} cannot be imported: {type(error).__name__}: {error}") from error
    if not callable(found):
        raise UserError(f"{kind} {name!r} is a {type(found).__name__}, expected a function")
    return found
