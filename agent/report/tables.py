"""Tables on the screen, whole however narrow the terminal: rich would cut names and numbers that it has no room for."""

from __future__ import annotations

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table


def print_table(table: Table) -> None:
    """Headers break between words, cells nowhere; what is wider than the terminal, the terminal wraps. Text is text:
    brackets of a path are no markup.
    """
    for column in table.columns:
        column.min_width = max(map(cell_len, [*str(column.header).split(), *map(str, column.cells)]))
    Console(markup=False, emoji=False).print(table, crop=False)
