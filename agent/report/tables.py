"""Tables in the terminal, never truncated: rich would cut cells that do not fit."""

from __future__ import annotations

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table


def print_table(table: Table) -> None:
    """Print with headers wrapped between words and cells never; rich markup is off, as paths may have brackets."""
    for column in table.columns:
        column.min_width = max(map(cell_len, [*str(column.header).split(), *map(str, column.cells)]))
    Console(markup=False, emoji=False).print(table, crop=False)
