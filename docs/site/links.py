"""Checks the built site as files: links lead to a page and to a place on it, and nothing comes from another host."""

from __future__ import annotations

import os
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """What a page links to, what it loads, and the ids that others can link to."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.ids: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value for name, value in attrs if value}
        self.ids |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag == "link" and "href" in given and given.get("rel") not in ("canonical", "next", "prev"):
            self.loaded.append(given["href"])
        elif "src" in given:
            self.loaded.append(given["src"])


def faults(site: Path) -> Iterator[str]:
    """Each broken link, and each file that a page would load from another host or that does not exist."""
    pages = {path: Page(path.read_text()) for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        where = path.relative_to(site).as_posix()
        if where == "404.html":
            continue  # its links are absolute, as it is shown at any address
        for loaded in page.loaded:
            if loaded.startswith("data:"):
                continue
            if urlsplit(loaded).netloc:
                yield f"{where} loads {loaded} from another host"
            elif not _target(path, loaded).is_file():
                yield f"{where} loads {loaded}, which does not exist"
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = _target(path, link)
            if not target.is_file():
                yield f"{where} links to {link}, which does not exist"
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids:
                yield f"{where} links to {link}, which has no such heading"


def _target(page: Path, link: str) -> Path:
    """The file that a relative link of a page leads to."""
    path = unquote(urlsplit(link).path)
    if not path:
        return page
    target = Path(os.path.normpath(page.parent / path))
    return target / "index.html" if target.is_dir() else target
