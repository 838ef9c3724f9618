"""Folders that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


def previous_folder(folder: Path) -> Path:
    """Where a full folder steps aside while a fresh one takes its name."""
    return folder.parent / f".{folder.name}.previous"


@contextmanager
def fresh_folder(folder: Path) -> Generator[Path]:
    """An empty hidden folder beside `folder`, to be filled; it gets that name, which must be free by then, at the end,
    when all that is in it is on the disk.

    What a process that was killed left of it is removed by the next one.
    """
    fresh = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    yield fresh
    for path in fresh.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    fresh.rename(folder)
