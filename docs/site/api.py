"""Pages of the API reference: directives that mkdocstrings replaces by signatures and docstrings."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from docs.site.stage import PACKAGES, write

INTRODUCTION = """\
`import llamarm` gives these names, which stay as they are between versions; [how they work together](../python.md).
Everything else is in the [packages](envs.md), and may move."""

_HEADING = re.compile(r"^(\w[\w ]+)\n((?:    .*\n?)+)", re.MULTILINE)


def write_api(root: Path, staged: Path) -> list[tuple[str, str]]:
    """Write the page of `import llamarm` and a page per folder of the packages.

    Returns:
        The folders' (title, page) in the order of the packages, for the navigation.
    """
    facade = (root / "llamarm" / "__init__.py").read_text()
    write(staged / "reference" / "api.md", facade_page(ast.get_docstring(ast.parse(facade)) or ""))
    entries = []
    for package in PACKAGES:
        for folder in folders(root / package) if package != "llamarm" else ():
            title = folder.relative_to(root).as_posix()
            page = Path("reference") / f"{title.replace('/', '.')}.md"
            write(staged / page, folder_page(root, folder))
            entries.append((title, page.as_posix()))
    return entries


def folders(room: Path) -> list[Path]:
    """The folders of a package that have modules, the package first."""
    return sorted({path.parent for path in room.rglob("*.py")})


def facade_page(docstring: str) -> str:
    """The page of the facade: its docstring's groups of names, as headings over what they name."""
    lines = ["# Python API", "", INTRODUCTION, ""]
    for title, names in grouped_names(docstring):
        lines += [f"## {title}", ""]
        for name in names:
            lines += [f"::: llamarm.{name}", "    options:", "      heading_level: 3", ""]
    return "\n".join(lines)


def grouped_names(docstring: str) -> Iterator[tuple[str, list[str]]]:
    """Each group of the facade's docstring: its title, and the names that its lines begin with."""
    for match in _HEADING.finditer(docstring):
        lines = match[2].splitlines()
        names = [name for line in lines for name in re.split(r"\s{2,}", line.strip())[0].split(", ")]
        yield match[1], names


def folder_page(root: Path, folder: Path) -> str:
    """The page of one folder: the docstring of its package, then each of its modules."""
    name = ".".join(folder.relative_to(root).parts)
    lines = [f"# {name}", "", f"::: {name}", "    options:", "      show_root_heading: false", "      members: []", ""]
    for module in sorted(folder.glob("*.py")):
        if module.stem not in ("__init__", "__main__"):
            lines += [f"::: {name}.{module.stem}", ""]
    return "\n".join(lines)
