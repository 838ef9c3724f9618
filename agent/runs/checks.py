"""Validation of configs before any work begins.

A field's range is annotated with annotated_types; rules across fields are in the config's own method `check`:

    decay: Annotated[float, Interval(ge=0, lt=1)] = 0.998
    steps: tuple[Annotated[int, Ge(1)], ...] = ()

Numbers that are not finite are always refused: every comparison with NaN is false, so a check of the form `value < low`
would accept it.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Annotated, Any, Protocol, get_args, get_origin, get_type_hints, runtime_checkable

from annotated_types import BaseMetadata, Ge, GroupedMetadata, Gt, Interval, Le, Lt, MinLen

from agent.runs.names import check_name
from envs.errors import UserError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from envs.world import World


Seed = Annotated[int, Interval(ge=0, lt=2**31)]
"""Accepted by every random number generator in use."""
Share = Annotated[float, Interval(ge=0, le=1)]
NumWorlds = Annotated[int, Interval(ge=1, le=65_536)]
"""Parallel worlds in a process."""
NumEpisodes = Annotated[int, Interval(ge=0, le=100_000)]
"""Episodes per task."""
HOW = {"how": True}
"""Metadata of a config's field that affects only how a run is computed, not its result: resuming may change it."""
STANDS_FOR = "stands for"


def none_stands_for(*numbers: float) -> dict[str, tuple[float, ...]]:
    """Metadata of a config's field whose None means a value derived from the rest of the config: a run recorded with
    one of these numbers, or with any if none is given, may be resumed with None.
    """
    return {STANDS_FOR: numbers}


@runtime_checkable
class Checked(Protocol):
    """A config with rules across its fields."""

    def check(self) -> None:
        """
        Raises:
            UserError: a rule is violated.
        """
        ...


def check_config(config: DataclassInstance) -> None:
    """Check every field of a config and of nested configs against its range, then the rules across fields.

    Raises:
        UserError: lists every field that is out of its range, by its option's name, or the first violated rule.

    Examples:
        >>> check_config(LearnerConfig(learning_rate=float("nan")))
        Traceback (most recent call last):
        UserError: learning-rate is nan, expected a finite number above 0
    """
    if found := list(out_of_range(config)):
        raise UserError("; ".join(found))
    _check_each(config)


def check_world(name: str) -> str:
    """The name itself, if it is a suite or of the form MODULE:FUNCTION.

    Raises:
        UserError: it is neither.
    """
    from envs.make import WORLDS

    return name if ":" in name else check_name("world", name, WORLDS)


def check_episodes(world: World, tasks: Sequence[str], variations: Sequence[str]) -> Sequence[str]:
    """The tasks, or all of the world if none is named.

    Raises:
        UserError: a task or a variation does not exist there, or is named twice.
    """
    for kind, names in (("task", tasks), ("variation", variations)):
        if twice := sorted({name for name in names if list(names).count(name) > 1}):
            raise UserError(f"{kind} {twice[0]!r} is named twice")
    found = [check_name("task", task, world.tasks) for task in tasks] or world.tasks
    for task in found:
        if (known := world.variations_of(task)) is not None:
            for variation in variations:
                if why := world.absent_variations.get(variation):
                    raise UserError(f"variation {variation!r} {why}. There are: {', '.join(known)}")
                check_name("variation", variation, known)
    return found


def out_of_range(config: DataclassInstance, prefix: str = "") -> Iterator[str]:
    """An error message for each field that is out of its range, by its option's name without the leading dashes."""
    hints = get_type_hints(type(config), include_extras=True)
    for field in fields(config):
        value, hint = getattr(config, field.name), hints[field.name]
        if is_dataclass(value) and not isinstance(value, type):
            yield from out_of_range(value, prefix if _is_unnamed(hint) else f"{prefix}{_option(field.name)}.")
        elif (problem := _problem(value, hint)) is not None:
            yield f"{prefix}{_option(field.name)} is {problem}"


def _check_each(config: DataclassInstance) -> None:
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value) and not isinstance(value, type):
            _check_each(value)
    if isinstance(config, Checked):
        config.check()


def _option(name: str) -> str:
    return name.replace("_", "-")


def _is_unnamed(hint: Any) -> bool:
    """Whether the command line names the config's fields without a prefix (tyro.conf.arg(name=""))."""
    return any(getattr(note, "name", None) == "" for note in getattr(hint, "__metadata__", ()))


def _problem(value: object, hint: Any) -> str | None:
    """The value and its expected range, None if it is in range; elements of a tuple may have a range of their own."""
    bounds = list(_bounds(hint))
    if isinstance(value, tuple):
        if any(isinstance(bound, MinLen) and len(value) < bound.min_length for bound in bounds):
            least = max(bound.min_length for bound in bounds if isinstance(bound, MinLen))
            return f"{value or 'empty'}, expected {least} or more"
        problems = (_problem(element, of) for element, of in zip(value, _of_elements(hint, len(value)), strict=True))
        return next((problem for problem in problems if problem is not None), None)
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    if math.isfinite(value) and all(_holds(value, bound) for bound in bounds):
        return None
    return f"{value}, expected a finite number {' and '.join(map(_in_words, bounds))}".rstrip()


def _of_elements(hint: Any, count: int) -> list[Any]:
    """The hint of every element of a tuple."""
    while get_origin(hint) is Annotated:
        hint = hint.__origin__
    for choice in (hint, *get_args(hint)):
        if get_origin(choice) is tuple:
            own = get_args(choice)
            return [own[0]] * count if own[-1] is ... else list(own)
    return [Any] * count


def _bounds(hint: Any) -> Iterator[BaseMetadata]:
    """The bounds of a hint, also inside a union: `Annotated[int, Ge(1)] | None`."""
    for note in getattr(hint, "__metadata__", ()):
        if isinstance(note, GroupedMetadata):
            yield from note
        elif isinstance(note, BaseMetadata):
            yield note
    if get_origin(hint) is Annotated:
        yield from _bounds(hint.__origin__)
    elif get_origin(hint) is not tuple:
        for choice in get_args(hint):
            yield from _bounds(choice)


_COMPARISONS: dict[type, tuple[str, Callable[[Any, Any], bool], str]] = {
    Gt: ("gt", operator.gt, "above"),
    Ge: ("ge", operator.ge, "at least"),
    Lt: ("lt", operator.lt, "below"),
    Le: ("le", operator.le, "at most"),
}
"""{bound: its field, the comparison of a value with it, and in words}"""


def _holds(value: float, bound: BaseMetadata) -> bool:
    name, compare, _ = _COMPARISONS[type(bound)]
    return compare(value, getattr(bound, name))


def _in_words(bound: BaseMetadata) -> str:
    name, _, words = _COMPARISONS[type(bound)]
    return f"{words} {getattr(bound, name)}"
