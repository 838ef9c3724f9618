"""Tables in the terminal, never truncated: rich would cut cells that do not fit."""

from __future__ import annotations

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table


class Output(Console):
    """Standard output, for text without rich's markup. A reader that exits ends the command as it does with `print`."""

    def __init__(self) -> None:
        super().__init__(markup=False, emoji=False, highlight=False)

    def on_broken_pipe(self) -> None:
        """Left to the command, where rich would exit with 1.

        Raises:
            BrokenPipeError: always.
        """
        raise BrokenPipeError


def print_table(table: Table) -> None:
    """Print with headers wrapped between words and cells never; rich markup is off, as paths may have brackets."""
    for column in table.columns:
        column.min_width = max(map(cell_len, [*str(column.header).split(), *map(str, column.cells)]))
    Output().print(table, crop=False)
