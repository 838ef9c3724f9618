"""Write the figures of the entries into the pages, or add an entry from a run's folder. See benchmarks/ledger."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import tyro

from benchmarks.ledger.entries import ROOT, EntryError, load, write
from benchmarks.ledger.pages import LIST, listed, pages, rendered
from benchmarks.ledger.runs import entry_of
from envs.errors import UserError


def render() -> None:
    """Write the figures of all entries into README.md and docs/, and the list of entries."""
    entries = load()
    written = {page: rendered(page.read_text(), entries, page) for page in pages()}
    written[LIST] = listed(entries)
    for page, text in written.items():
        if not page.exists() or page.read_text() != text:
            page.write_text(text)
            print(page.relative_to(ROOT))


def add(
    name: Annotated[str, tyro.conf.Positional],
    run: Annotated[Path, tyro.conf.Positional],
    /,
    *,
    title: str,
    page: str,
    beside: str = "",
) -> None:
    """Add an entry, or replace it, from the folder of a run or of an evaluation.

    Args:
        name: of the entry's file.
        run: the folder.
        title: what was measured, as the first cell of a table's row.
        page: the page that describes it, from the repository's root.
        beside: what else ran on the machine.
    """
    print(write(name, entry_of(run, title, page, beside)))


if __name__ == "__main__":
    try:
        tyro.extras.subcommand_cli_from_dict({"render": render, "add": add}, description=__doc__)
    except (EntryError, UserError) as error:
        sys.exit(str(error))
