"""Copies the documents to the folder that Zensical builds from."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

STYLE = Path(__file__).with_name("site.css")
IMAGES = (".png", ".svg", ".webp", ".gif")
LANGUAGES = {".py": "python", ".xml": "xml", ".sh": "bash", ".toml": "toml"}
"""Ending of a source file that has a page of its own: its language."""
TITLES = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md", "README.md": "index.md"}
"""Document beside docs/: its page. A link to README leads to the site's home, which says the same and more."""
PACKAGES = ("envs", "vla_model", "rollout", "agent", "llamarm")
OWN_PAGES = {"agent/cli.py": "commands.md", "agent/recipes.py": "recipes.md", "llamarm/__init__.py": "api.md"}
COPIED = ("CHANGELOG.md", "CONTRIBUTING.md")

_CODE = re.compile(r"(^```.*?^```$|`[^`\n]*`)", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")


def stage(root: Path, staged: Path) -> None:
    """Copy docs/ and the documents beside it, and make a page of every source file that they link to.

    Args:
        root: the repository.
        staged: folder to write; what it held is removed.

    Raises:
        ValueError: a document links to a file that does not exist.
    """
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    sources: set[Path] = set()
    for document, page in pages(root):
        text, linked = with_site_links(document.read_text(), document, page, root)
        sources |= linked
        write(staged / page, text)
    for path in sorted((root / "docs").rglob("*")):
        if path.suffix in IMAGES:
            target = staged / path.relative_to(root / "docs")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    shutil.copyfile(STYLE, staged / "site.css")
    for source in sorted(sources):
        write(staged / source_page(source), _listing(root, source))


def pages(root: Path) -> Iterator[tuple[Path, Path]]:
    """Every document, and its page relative to the site's root."""
    docs = root / "docs"
    for document in sorted(docs.rglob("*.md")):
        yield document, document.relative_to(docs)
    for name in COPIED:
        yield root / name, Path(TITLES[name])


def with_site_links(text: str, document: Path, page: Path, root: Path) -> tuple[str, set[Path]]:
    """A document's text with links that hold on the site, and the source files that need a page.

    A document links to files, as a reader of the repository needs it. On the site a package's module has its place in
    the reference.

    Args:
        text: Markdown.
        document: the file that the text is of, to which its links are relative.
        page: its page, relative to the site's root.
        root: the repository.

    Raises:
        ValueError: a link leads to a file that does not exist.
    """
    sources: set[Path] = set()

    def replaced(match: re.Match[str]) -> str:
        target = Path(os.path.normpath(document.parent / match[1]))
        if not target.exists():
            raise ValueError(f"{document.relative_to(root)} links to {match[1]}, which does not exist")
        relative = target.relative_to(root)
        if relative.parts[0] == "docs":
            meant = relative.relative_to("docs")
        elif relative.as_posix() in TITLES:
            # An anchor of README need not be one of the home page.
            return f"]({_from(page, Path(TITLES[relative.as_posix()]))})"
        elif (reference := reference_page(relative)) is not None:
            return f"]({_from(page, Path('reference'))}/{reference})"
        else:
            sources.add(relative)
            meant = source_page(relative)
        return f"]({_from(page, meant)}{match[2] or ''})"

    parts = _CODE.split(text)
    return "".join(part if index % 2 else _LINK.sub(replaced, part) for index, part in enumerate(parts)), sources


def reference_page(source: Path) -> str | None:
    """Where the reference describes a package's folder or module, relative to it; None for any other file.

    The command line and its commands have pages of options, the recipes and the facade pages of their own.
    """
    if source.parts[0] not in PACKAGES or source.suffix not in ("", ".py"):
        return None
    if source.as_posix() in OWN_PAGES:
        return OWN_PAGES[source.as_posix()]
    if source.parent == Path("agent/commands"):
        return f"{source.stem}.md"
    folder, module = ".".join(source.parent.parts), ".".join(source.with_suffix("").parts)
    return f"{folder}.md#{module}" if source.suffix else f"{module}.md"


def source_page(source: Path) -> Path:
    """The page of a source file that the reference does not describe, relative to the site's root."""
    return Path("source") / f"{source.as_posix()}.md"


def write(path: Path, text: str) -> None:
    """Write a page, and the folders to it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _from(page: Path, target: Path) -> str:
    return os.path.relpath(target, page.parent)


def _listing(root: Path, source: Path) -> str:
    language = LANGUAGES.get(source.suffix, "text")
    return f"# {source.as_posix()}\n\n```{language}\n{(root / source).read_text().rstrip()}\n```\n"
