"""Pages of commands and recipes, from the parsers that read the command line."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Never
from unittest.mock import patch

import tyro

from agent import cli
from agent.commands.shared import options
from agent.recipes import RECIPES
from docs.site.stage import write

SUMMARY = re.compile(r"^  (\w+) +.*?  +(\S.*)$", re.MULTILINE)
_DEFAULT = re.compile(r"\s*\((?:default: ?(?P<default>.*)|required)\)$", re.DOTALL)
_CODE = re.compile(r"(`[^`]*`)")
_SPECIAL = re.compile(r"docs/([\w/]+)\.md|[*_<>\[\]|]")


@dataclass(frozen=True, kw_only=True)
class Option:
    """One option of a command."""

    name: str
    """`--learner.batch-size`, or the metavar of an argument without a name."""
    values: str
    """Its metavar; empty for a flag, and for an argument without a name."""
    meaning: str
    default: str
    """As the help prints it; empty if there is none."""
    group: str
    """The part of a name before its last dot: `learner`."""

    required: bool

    @property
    def usage(self) -> str:
        """The option and its values, as they are typed."""
        return f"{self.name} {self.values}".strip()

    @property
    def field(self) -> str:
        """The name without the `no-` of a flag that is set by default."""
        return self.name.replace("--no-", "--").replace(".no-", ".")


class _FoundError(Exception):
    """The command line is about to be parsed by these options."""

    def __init__(self, parsed: Any, prog: str, config: Sequence[Any]) -> None:
        super().__init__()
        self.parsed, self.prog, self.config = parsed, prog, config


def parser_of(args: Sequence[str]) -> Any:
    """The parser of a command, given what it needs to choose its options: `["train", "sft_demo"]`.

    Returns:
        tyro's own form of an argparse.ArgumentParser.

    Raises:
        ValueError: the command parses no options.
    """

    def found(parsed: Any, **given: Any) -> Never:
        raise _FoundError(parsed, given["prog"], given["config"])

    with patch.object(options.tyro, "cli", found):
        try:
            cli._run(list(args))
        except _FoundError as parsed:
            with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
                return tyro.extras.get_parser(  # ty: ignore[deprecated]
                    parsed.parsed, prog=parsed.prog, config=parsed.config
                )
    raise ValueError(f"llamarm {' '.join(args)} parses no options")


def options_of(parser: Any) -> Iterator[Option]:
    """Each option of a parser but `--help`."""
    for action in parser._actions:
        if "--help" in action.option_strings:
            continue
        meaning, default = _parted(action.help or "")
        named = action.option_strings[-1] if action.option_strings else str(action.metavar)
        yield Option(
            name=named,
            values="" if action.nargs == 0 or not action.option_strings else str(action.metavar),
            meaning=meaning,
            default=default,
            required=not action.option_strings or "(required)" in (action.help or ""),
            group=named.removeprefix("--").rpartition(".")[0] if action.option_strings else "",
        )


def _parted(text: str) -> tuple[str, str]:
    """An option's help: what it means, and its default."""
    match = _DEFAULT.search(text)
    if match is None:
        return " ".join(text.split()), ""
    return " ".join(text[: match.start()].split()), (match["default"] or "").strip().strip("'")


def listed(found: Sequence[Option]) -> list[str]:
    """Markdown of options: a definition list under the heading of each group."""
    lines: list[str] = []
    group = ""
    for option in sorted(found, key=lambda option: option.group):
        if option.group != group:
            group = option.group
            lines += [f"### `--{group}`", ""]
        shown = option.values and option.default not in ("", "None")
        default = f" <small>default `{option.default}`</small>" if shown else ""
        lines += [f"`{option.usage}`{default}", f":   {plain(option.meaning)}", ""]
    return lines


def plain(text: str) -> str:
    """A help text as Markdown that shows it as it is, but for code in backticks and links to the documents it names."""

    def shown(match: re.Match[str]) -> str:
        return f"[`{match[0]}`](../{match[1]}.md)" if match[1] else f"\\{match[0]}"

    parts = _CODE.split(text)
    return "".join(part if index % 2 else _SPECIAL.sub(shown, part) for index, part in enumerate(parts))


def write_commands(staged: Path) -> list[tuple[str, str]]:
    """Write a page per command and one of all recipes.

    Returns:
        Their (title, page), for the navigation.
    """
    pages = {"commands": _overview(), "recipes": _recipes()}
    for command in cli.COMMANDS:
        pages[command] = _command(command)
    for name, lines in pages.items():
        write(staged / "reference" / f"{name}.md", "\n".join(lines) + "\n")
    return [(f"llamarm {command}", f"reference/{command}.md") for command in cli.COMMANDS]


def summaries() -> dict[str, str]:
    """What `llamarm --help` says of each command."""
    return {name: said for name, said in SUMMARY.findall(cli._HELP) if name in cli.COMMANDS}


def _overview() -> list[str]:
    lines = ["# Commands", "", "Each is made of the options that the command line itself reads.", ""]
    for command, said in summaries().items():
        lines += [f"[`llamarm {command}`]({command}.md)", f":   {plain(said)}", ""]
    return lines


def _command(command: str) -> list[str]:
    said = summaries()[command]
    lines = [f"# llamarm {command}", "", f"{said[0].upper()}{plain(said[1:])}.", ""]
    if command == "train":
        return lines + _train()
    first = ["sft_demo"] if command in ("collect", "scale") else []
    found = list(options_of(parser_of([command, *first])))
    # An argument without a name, or an option without a default, has to be given.
    required = ["RECIPE"] * len(first) + [option.usage for option in found if option.required]
    lines += ["```", " ".join(["llamarm", command, *required, "[OPTIONS]"]), "```", ""]
    if first:
        lines += ["The defaults are those of the [recipe](recipes.md) `sft_demo`.", ""]
    return lines + listed(found)


def _train() -> list[str]:
    """The options of recipes that clone, and of those that fine-tune, whose algorithms have options of their own."""
    cloning, tuning = by_loop()
    lines = ["```", "llamarm train RECIPE --out DIR [OPTIONS]", "```", ""]
    lines += [f"## Recipes that train on demonstrations, as `{cloning[0]}`", ""]
    lines += listed(list(options_of(parser_of(["train", cloning[0]]))))
    algorithms = {name.partition("_")[0]: name for name in reversed(tuning)}
    found = {name: list(options_of(parser_of(["train", recipe]))) for name, recipe in algorithms.items()}
    shared = [option for option in found["ppo"] if not option.group.startswith("algorithm")]
    lines += [f"## Recipes that fine-tune a policy, as `{algorithms['ppo']}`", "", *listed(shared)]
    for name, recipe in algorithms.items():
        own = [option for option in found[name] if option.group.startswith("algorithm")]
        lines += [f"## The algorithm of `{recipe}`", "", *listed(own)]
    return lines


def by_loop() -> tuple[list[str], list[str]]:
    """Names of the recipes that train on demonstrations, and of those that fine-tune a policy."""
    loops = {name: recipe().loop for name, recipe in RECIPES.items()}
    return [name for name in loops if loops[name] == "train"], [name for name in loops if loops[name] != "train"]


def _recipes() -> list[str]:
    """Every recipe: what it is for, and where its defaults differ from those of the first of its kind."""
    lines = [
        "# Recipes",
        "",
        "A recipe is a set of defaults: [`llamarm train RECIPE`](train.md) takes every option.",
        "",
    ]
    for kind, names in zip(("that train on demonstrations", "that fine-tune a policy"), by_loop(), strict=True):
        lines += [f"## Recipes {kind}", ""]
        first = {option.field: option for option in options_of(parser_of(["train", names[0]]))}
        for name in names:
            said = " ".join((RECIPES[name].__doc__ or "").split())
            lines += [f"### {name}", "", plain(said), "", "```", f"llamarm train {name} --out runs/mine", "```", ""]
            if name != names[0]:
                lines += _differences(name, names[0], first)
    return lines


def _differences(name: str, base: str, first: dict[str, Option]) -> list[str]:
    """A table of the options whose default is not that of another recipe."""
    rows = []
    for option in options_of(parser_of(["train", name])):
        before = first[option.field].default if option.field in first else ""
        if option.default != before:
            rows.append(f"| `{option.field}` | {_cell(option.default)} | {_cell(before)} |")
    return [f"| default of | `{name}` | `{base}` |", "|---|---|---|", *rows, ""]


def _cell(default: str) -> str:
    return f"`{default}`" if default else ""
