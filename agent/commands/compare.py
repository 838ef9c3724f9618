"""The command `llamarm compare`: two evaluations of the same episodes side by side, as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from agent.commands.shared.options import parse
from agent.runs.messages import say_next
from agent.runs.run_folder import RunFolder

if TYPE_CHECKING:
    from agent.evaluation.compare import Comparison

_NOTE = (
    "Change of success in points with its 95 % interval (Bonett & Price 2012); episodes in which only the second and "
    "only the first succeeded; McNemar's exact p, adjusted by Holm's method for the number of rows of each table."
)


@dataclass(frozen=True, kw_only=True)
class Compare:
    """Paired comparison of two evaluations of the same episodes, with significance tests."""

    before: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="BEFORE")]
    """Folder of a run or of an evaluation."""
    after: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="AFTER")]
    """Folder of the other one."""


def run(args: list[str]) -> None:
    """Run the command."""
    options = parse(Compare, "compare", args)

    from agent.evaluation.eval_info import read_eval_info

    names = options.before.resolve().name, options.after.resolve().name
    if names[0] == names[1]:
        names = str(options.before), str(options.after)
    infos = tuple(read_eval_info(RunFolder(folder).eval_info) for folder in (options.before, options.after))
    print("\n".join(tables(names, *infos)))
    say_next(f"see {names[1]} on one page", "report", options.after)


def tables(names: tuple[str, str], before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    """Lines of Markdown: all episodes, and by variation and by task where there are several.

    Raises:
        UserError: they are not of the same episodes.
    """
    from agent.evaluation.compare import compare

    comparison = compare(before, after)
    yield f"# {names[0]} and {names[1]}"
    yield ""
    yield _NOTE
    steps = before["protocol"]["n_action_steps"], after["protocol"]["n_action_steps"]
    if steps[0] != steps[1]:
        yield ""
        yield f"Not the same protocol: {names[0]} executed {steps[0]} actions of each chunk, {names[1]} {steps[1]}."
    yield ""
    yield from _table("episodes", names, {f"all {comparison.num_episodes}": comparison})
    for what, parts in (("variation", comparison.per_group), ("task", comparison.per_task)):
        if len(parts) > 1:
            yield ""
            yield from _table(what, names, parts)


def _table(what: str, names: tuple[str, str], parts: Mapping[str, Comparison]) -> Iterator[str]:
    from agent.evaluation.statistics import holm

    yield f"| {what} | {names[0]} % | {names[1]} % | change | 95 % interval | won, lost | p |"
    yield "|---|---|---|---|---|---|---|"
    adjusted = holm([part.p_value for part in parts.values()])
    for (name, part), p_value in zip(parts.items(), adjusted, strict=True):
        (first, second), (low, high) = part.pc_success, part.difference_interval
        yield (
            f"| {name} | {first:.1f} | {second:.1f} | {part.difference:+.1f} | {low:+.1f} to {high:+.1f} "
            f"| {len(part.won)}, {len(part.lost)} | {p_value:.2g} |"
        )
